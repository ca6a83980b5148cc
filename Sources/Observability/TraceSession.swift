// SPDX-License-Identifier: Apache-2.0
//
// kvm_user's tracepoints as a stream, in a trace instance of this process's own.

import Glibc
public import KernelModule
import LinuxSystem
import SystemPackage

/// A trace instance in which nothing but kvm_user's tracepoints is on, and its pipe.
///
/// Other users of the kernel's tracing are not disturbed. The instance goes with this value; one that a killed process
/// left is removed by the next session.
public struct TraceSession: ~Copyable {
    private let folder: TraceFolder
    private let pipe: CInt
    /// A line whose end has not come yet.
    private var unfinished: [UInt8] = []

    /// Begins to trace. C: `mkdir` in tracefs.
    ///
    /// - Parameters:
    ///   - devices: the numbers of devices to trace, see ``DeviceIdentity/number``; nil for all, later ones too.
    ///   - tree: where tracefs is.
    /// - Throws: ``KernelModule/ModuleError``: the module is not loaded, tracefs is not mounted, or this user may not
    ///   trace.
    public init(devices: [UInt32]? = nil, in tree: SystemTree = .running) throws(ModuleError) {
        let folder = try TraceFolder(in: tree)
        // Timestamps that other programs know.
        try folder.set("trace_clock", to: "mono")
        // Wake a reader for the first event, not for half a buffer.
        try folder.set("buffer_percent", to: "0")
        if let devices {
            try folder.set(
                "events/kvm_user/filter", to: devices.map { "dev == \($0)" }.joined(separator: " || "))
        }
        try folder.set("events/kvm_user/enable", to: "1")
        pipe = try folder.openPipe()
        self.folder = folder
    }

    deinit {
        // Before the instance, which is busy while its pipe is open.
        _ = Glibc.close(pipe)
    }

    /// Readable when there is something to ``take()``; it stays this value's.
    public var descriptor: CInt { pipe }

    /// Whether the module is still there: without it nothing will come.
    public var hasModule: Bool { folder.hasEvents }

    /// Bytes to take at once, at most.
    private static let most = 1 << 16

    /// Takes what has come, without waiting. C: `read`.
    ///
    /// - Returns: lines in the kernel's order; empty if there are none.
    /// - Throws: ``KernelModule/ModuleError`` if the pipe cannot be read any more.
    public mutating func take() throws(ModuleError) -> [TraceItem] {
        var bytes = [UInt8](repeating: 0, count: Self.most)
        var count = 0
        do throws(Errno) {
            count = try Self.read(pipe, &bytes)
        } catch .resourceTemporarilyUnavailable {
            return []
        } catch {
            throw folder.failure(error)
        }
        return Self.lines(unfinished: &unfinished, bytes.prefix(count))
    }

    private static func read(_ pipe: CInt, _ bytes: inout [UInt8]) throws(Errno) -> Int {
        try systemCall(onInterrupt: .retry) {
            unsafe bytes.withUnsafeMutableBytes { unsafe Glibc.read(pipe, $0.baseAddress, $0.count) }
        }
    }

    /// The lines that end in `bytes`; the rest waits for its end, unless it is longer than any line of the kernel's.
    static func lines(unfinished: inout [UInt8], _ bytes: some Collection<UInt8>) -> [TraceItem] {
        unfinished += bytes
        var lines = unfinished.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        let last = lines.removeLast()
        if last.count > most {
            lines.append(last)
            unfinished = []
        } else {
            unfinished = Array(last)
        }
        return lines.filter { !$0.isEmpty }.map { TraceItem($0) }
    }
}

/// An instance in tracefs, gone with this value.
private struct TraceFolder: ~Copyable {
    private let tree: SystemTree
    private let path: String

    private static let prefix = "mmiofd-"

    init(in tree: SystemTree) throws(ModuleError) {
        let root = try Self.root(in: tree)
        guard tree.exists("\(root)/events/\(ForwardingModule.name)") else {
            throw Self.failure(.noSuchFileOrDirectory, tree, "tracefs has no events/\(ForwardingModule.name)")
        }
        Self.removeStale(in: tree, root)
        let path = "\(root)/instances/\(Self.prefix)\(getpid())"
        do throws(Errno) {
            try systemCall(onInterrupt: .retry) {
                unsafe tree.path(path).withPlatformString { unsafe mkdir($0, 0o700) }
            }
        } catch {
            throw Self.failure(error, tree, "the kernel makes no trace instance")
        }
        self.tree = tree
        self.path = path
    }

    deinit {
        _ = unsafe tree.path(path).withPlatformString { unsafe rmdir($0) }
    }

    /// Whether tracefs still has the module's events.
    var hasEvents: Bool { tree.exists("\(path)/events/\(ForwardingModule.name)") }

    func set(_ file: String, to text: String) throws(ModuleError) {
        do throws(Errno) {
            let descriptor = try OwnedDescriptor.open(tree.path("\(path)/\(file)"), .writeOnly)
            let bytes = Array(text.utf8)
            try systemCall(onInterrupt: .retry) {
                unsafe bytes.withUnsafeBytes { unsafe write(descriptor.rawValue, $0.baseAddress, $0.count) }
            }
        } catch {
            throw Self.failure(error, tree, "tracefs does not take '\(text)' for \(file)")
        }
    }

    /// The pipe, non-blocking; the caller closes it.
    func openPipe() throws(ModuleError) -> CInt {
        do throws(Errno) {
            let pipe = try OwnedDescriptor.open(tree.path("\(path)/trace_pipe"), .readOnly)
            try systemCall(onInterrupt: .retry) { fcntl(pipe.rawValue, F_SETFL, O_NONBLOCK) }
            return pipe.release()
        } catch {
            throw failure(error)
        }
    }

    func failure(_ errno: Errno) -> ModuleError {
        Self.failure(errno, tree, "the trace cannot be read")
    }

    /// Where tracefs is.
    private static func root(in tree: SystemTree) throws(ModuleError) -> String {
        var found = Errno.noSuchFileOrDirectory
        for root in ["sys/kernel/tracing", "sys/kernel/debug/tracing"] {
            do throws(Errno) {
                _ = try tree.names(in: "\(root)/instances")
                return root
            } catch {
                if error != .noSuchFileOrDirectory { found = error }
            }
        }
        throw failure(found, tree, "tracefs is not mounted")
    }

    /// Removes the instances of processes that are no more.
    private static func removeStale(in tree: SystemTree, _ root: String) {
        for name in (try? tree.names(in: "\(root)/instances")) ?? [] where name.hasPrefix(prefix) {
            guard let process = Int32(name.dropFirst(prefix.count)), !tree.exists("proc/\(process)") else { continue }
            _ = unsafe tree.path("\(root)/instances/\(name)").withPlatformString { unsafe rmdir($0) }
        }
    }

    private static func failure(_ errno: Errno, _ tree: SystemTree, _ cause: String) -> ModuleError {
        let action = "trace \(ForwardingModule.name)"
        if let missing = ModuleError.notLoaded(action, errno, tree) { return missing }
        if errno == .permissionDenied || errno == .notPermitted {
            return ModuleError(action: action, errno: errno, cause: "this user may not trace", remedy: "use sudo")
        }
        return ModuleError(
            action: action, errno: errno, cause: cause,
            remedy: "sudo mount -t tracefs tracefs /sys/kernel/tracing, on a kernel with CONFIG_TRACING")
    }
}
