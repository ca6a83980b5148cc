// SPDX-License-Identifier: Apache-2.0
//
// A program that a test runs: its output, its end, and no way to hang.

import Glibc
import LinuxSystem
import SystemPackage
import Testing

/// A program in a process of its own, its output in files.
final class RunningCommand {
    /// The command line, as it was built.
    static let mmiofd: FilePath = ".build/debug/mmiofd"

    private let child: ChildProcess
    private let output: FileDescriptor
    private let error: FileDescriptor
    private var status: Int32?

    /// Starts a program.
    init(_ program: FilePath = mmiofd, arguments: [String]) throws {
        let null = try OwnedDescriptor.open("/dev/null", .readOnly)
        output = try Self.temporaryFile()
        error = try Self.temporaryFile()
        child = try ChildProcess(
            program, arguments,
            descriptors: .init(input: null.rawValue, output: output.rawValue, error: error.rawValue))
    }

    deinit {
        if status == nil {
            signal(SIGKILL)
            child.wait()
        }
        try? output.close()
        try? error.close()
    }

    /// A file without a name.
    private static func temporaryFile() throws -> FileDescriptor {
        var path = Array("/tmp/mmiofd-test.XXXXXX".utf8CString)
        let descriptor = unsafe mkstemp(&path)
        try #require(descriptor >= 0)
        _ = unsafe unlink(path)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        return FileDescriptor(rawValue: descriptor)
    }

    /// Its process id.
    var process: Int32 { child.process }

    /// Sends a signal.
    func signal(_ number: CInt) {
        _ = kill(child.process, number)
    }

    /// Whether it is stopped, by SIGTSTP say.
    var isStopped: Bool {
        // "number (name) state ..."
        let status = try? textOfFile("/proc/\(child.process)/stat")
        return status?.split(separator: ")").last?.hasPrefix(" T") ?? false
    }

    /// Waits for the end; no end within the limit is a failure, and the program is killed.
    ///
    /// - Returns: the exit status; 128 + n if signal n ended it.
    @discardableResult
    func end(within limit: Duration = .seconds(60), sourceLocation: SourceLocation = #_sourceLocation) throws -> Int32 {
        if let status { return status }
        _ = eventually(within: limit) {
            status = child.statusIfEnded()
            return status != nil
        }
        return try #require(status, "no end; it said: \(text) \(errorText)", sourceLocation: sourceLocation)
    }

    /// What it has printed so far.
    var text: String { Self.text(of: output) }
    /// What it has printed to standard error so far.
    var errorText: String { Self.text(of: error) }

    private static func text(of file: FileDescriptor) -> String {
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = try? unsafe bytes.withUnsafeMutableBytes { unsafe try file.read(fromAbsoluteOffset: 0, into: $0) }
        return String(decoding: bytes.prefix(count ?? 0), as: UTF8.self)
    }
}
