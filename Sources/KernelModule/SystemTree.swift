// SPDX-License-Identifier: Apache-2.0
//
// Small reads below /proc, /sys and /dev, or below a folder that looks like them.

import Glibc
import LinuxSystem
public import SystemPackage

/// The file system in which the kernel tells about itself.
///
/// Everything in this library that reads /proc, /sys, /dev, /lib or /run does so through one of these, so that a
/// made-up tree shows what it says of machines other than this one. Paths are relative to ``root``.
public struct SystemTree: Sendable, Hashable {
    /// Where the tree begins.
    public let root: FilePath

    /// The machine that this runs on.
    public static let running = SystemTree(root: "/")

    /// A tree that begins at `root`, "/" being the machine's own.
    public init(root: FilePath) {
        self.root = root
    }

    /// Where `path` lies.
    ///
    /// - Parameter path: relative, such as `"proc/modules"`.
    public func path(_ path: String) -> FilePath {
        root.appending(path)
    }

    /// Whether there is something at `path` that this process can see. C: `access(F_OK)`.
    public func exists(_ path: String) -> Bool {
        unsafe self.path(path).withPlatformString { unsafe access($0, F_OK) } == 0
    }

    /// The whole of a file. C: `open`, `read`.
    ///
    /// - Throws: errno of the calls.
    public func bytes(_ path: String) throws(Errno) -> [UInt8] {
        try OwnedDescriptor.open(self.path(path), .readOnly).readToEnd()
    }

    /// The whole of a file as text, without white space at its ends.
    ///
    /// - Throws: errno of the calls.
    public func text(_ path: String) throws(Errno) -> String {
        var bytes = try self.bytes(path)[...]
        while let last = bytes.last, last <= UInt8(ascii: " ") { bytes.removeLast() }
        while let first = bytes.first, first <= UInt8(ascii: " ") { bytes.removeFirst() }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The names in a folder, sorted, without `.` and `..`. C: `opendir`, `readdir`.
    ///
    /// - Throws: errno of `opendir`.
    public func names(in path: String) throws(Errno) -> [String] {
        guard let folder = unsafe self.path(path).withPlatformString({ unsafe opendir($0) }) else {
            throw Errno(rawValue: errno)
        }
        defer { _ = unsafe closedir(folder) }
        var names: [String] = []
        while let entry = unsafe readdir(folder) {
            // SAFETY: the kernel ends d_name with a NUL; the entry stays until the next readdir.
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe String(cString: UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self))
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Where a symbolic link points, which need not exist. C: `readlink`.
    ///
    /// - Throws: errno of the call: EINVAL for what is no link, EACCES.
    public func target(ofLink path: String) throws(Errno) -> String {
        var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
        let count = try systemCall(onInterrupt: .retry) {
            unsafe self.path(path).withPlatformString { name in
                unsafe buffer.withUnsafeMutableBytes {
                    unsafe readlink(name, $0.assumingMemoryBound(to: CChar.self).baseAddress!, $0.count)
                }
            }
        }
        return String(decoding: buffer.prefix(count), as: UTF8.self)
    }
}
