// SPDX-License-Identifier: Apache-2.0
//
// A file descriptor with exactly one owner.

import Glibc
public import SystemPackage

/// A file descriptor that this value alone owns and that is closed when it goes.
public struct OwnedDescriptor: ~Copyable, Sendable {
    /// The descriptor's number, for calls that borrow it. It must not be closed, nor kept beyond this value's life.
    public let rawValue: CInt

    /// Takes over a descriptor that nothing else will close.
    ///
    /// - Parameter rawValue: an open descriptor.
    public init(adopting rawValue: CInt) {
        self.rawValue = rawValue
    }

    deinit {
        _ = Glibc.close(rawValue)
    }

    /// The descriptor as swift-system's type, for calls that borrow it.
    public var fileDescriptor: FileDescriptor { FileDescriptor(rawValue: rawValue) }

    /// Opens a file, close-on-exec. C: `open`.
    ///
    /// - Throws: errno of the call; a signal does not end it.
    public static func open(_ path: FilePath, _ mode: FileDescriptor.AccessMode) throws(Errno) -> OwnedDescriptor {
        do {
            return OwnedDescriptor(adopting: try FileDescriptor.open(path, mode, options: .closeOnExec).rawValue)
        } catch let error as Errno {
            throw error
        } catch {
            fatalError("FileDescriptor.open throws Errno alone")
        }
    }

    /// Closes the descriptor now and reports what close(2) says. C: `close`.
    ///
    /// - Throws: errno of the call. The descriptor is gone all the same.
    public consuming func close() throws(Errno) {
        let rawValue = release()
        // Never again on EINTR: Linux has freed the number by then.
        try systemCall(onInterrupt: .fail) { Glibc.close(rawValue) }
    }

    /// Gives up ownership.
    ///
    /// - Returns: the descriptor, which the caller now has to close.
    public consuming func release() -> CInt {
        let rawValue = rawValue
        discard self
        return rawValue
    }

    /// Reads to the end. C: `read`.
    ///
    /// Files of proc and sysfs have no size to go by: it reads until there is no more.
    ///
    /// - Throws: errno of the call; a signal does not end it.
    public func readToEnd() throws(Errno) -> [UInt8] {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = try systemCall(onInterrupt: .retry) {
                unsafe chunk.withUnsafeMutableBytes { unsafe read(rawValue, $0.baseAddress, $0.count) }
            }
            if count == 0 { return bytes }
            bytes += chunk.prefix(count)
        }
    }

    /// Makes a second descriptor for the same open file, close-on-exec. C: `fcntl(F_DUPFD_CLOEXEC)`.
    ///
    /// - Throws: errno of the call, EMFILE above all.
    public func duplicate() throws(Errno) -> OwnedDescriptor {
        OwnedDescriptor(adopting: try systemCall(onInterrupt: .retry) { fcntl(rawValue, F_DUPFD_CLOEXEC, 0) })
    }
}
