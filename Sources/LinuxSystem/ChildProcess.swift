// SPDX-License-Identifier: Apache-2.0
//
// A program and all that it starts, as one thing to wait for and to end; and to become one.

import Glibc
package import SystemPackage

/// A child process that leads a process group of its own: signals from the caller's terminal do not reach it.
package struct ChildProcess: Sendable {
    /// Its process id; another process may have it once this one has been waited for.
    package let process: Int32

    /// Which descriptors the child gets as its standard three.
    package struct StandardDescriptors {
        let input: CInt
        let output: CInt
        let error: CInt

        /// Takes the numbers of open descriptors; they stay the caller's.
        package init(input: Int32, output: Int32, error: Int32) {
            self.input = input
            self.output = output
            self.error = error
        }
    }

    /// Starts a program. C: `posix_spawn`.
    ///
    /// - Parameters:
    ///   - program: its path.
    ///   - arguments: those after its own name.
    ///   - environment: variables to change in a copy of this process's own.
    ///   - descriptors: its standard three.
    /// - Throws: errno: ENOENT or EACCES for a program that cannot be run.
    package init(
        _ program: FilePath, _ arguments: [String], environment: [String: String] = [:],
        descriptors: StandardDescriptors
    ) throws(Errno) {
        var actions = unsafe posix_spawn_file_actions_t()
        _ = unsafe posix_spawn_file_actions_init(&actions)
        defer { _ = unsafe posix_spawn_file_actions_destroy(&actions) }
        for (number, descriptor) in [descriptors.input, descriptors.output, descriptors.error].enumerated() {
            _ = unsafe posix_spawn_file_actions_adddup2(&actions, descriptor, CInt(number))
        }

        var attributes = posix_spawnattr_t()
        _ = unsafe posix_spawnattr_init(&attributes)
        defer { _ = unsafe posix_spawnattr_destroy(&attributes) }
        // What this process blocks and ignores is its own affair.
        var (none, ignored) = (sigset_t(), sigset_t())
        _ = unsafe sigemptyset(&none)
        _ = unsafe sigemptyset(&ignored)
        _ = unsafe sigaddset(&ignored, SIGPIPE)
        _ = unsafe posix_spawnattr_setsigmask(&attributes, &none)
        _ = unsafe posix_spawnattr_setsigdefault(&attributes, &ignored)
        let flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP
        _ = unsafe posix_spawnattr_setflags(&attributes, Int16(flags))

        var process: pid_t = 0
        let result = unsafe withCStrings([program.string] + arguments) { argv in
            unsafe withCStrings(Self.variables(changing: environment)) { envp in
                unsafe posix_spawn(&process, program.string, &actions, &attributes, argv, envp)
            }
        }
        guard result == 0 else { throw Errno(rawValue: result) }
        self.process = process
    }

    /// Waits until the process has ended. C: `waitpid`.
    ///
    /// - Returns: its exit status; 128 + n if signal n ended it.
    @discardableResult
    package func wait() -> Int32 {
        exitStatus(options: 0) ?? 0
    }

    /// Its exit status as ``wait()`` has it, or nil if it still runs. C: `waitpid(WNOHANG)`.
    package func statusIfEnded() -> Int32? {
        exitStatus(options: WNOHANG)
    }

    private func exitStatus(options: CInt) -> Int32? {
        var status: CInt = 0
        let ended = try? systemCall(onInterrupt: .retry) { unsafe waitpid(process, &status, options) }
        guard ended == process else { return nil }
        let signal = status & 0x7f
        return signal == 0 ? (status >> 8) & 0xff : 128 &+ signal
    }

    /// Makes its group the one that the terminal on standard input talks to, if there is one. C: `tcsetpgrp`.
    package func takeTerminal() {
        _ = tcsetpgrp(STDIN_FILENO, process)
    }

    /// Sends a signal to the whole group. C: `kill`.
    package func signalGroup(_ signal: Int32) {
        _ = kill(-process, signal)
    }

    private static func variables(changing changes: [String: String]) -> [String] {
        var variables: [String] = []
        var next = unsafe environ
        while let entry = unsafe next.pointee {
            let variable = unsafe String(cString: entry)
            let name = String(variable.prefix { $0 != "=" })
            if changes[name] == nil { variables.append(variable) }
            unsafe next += 1
        }
        return variables + changes.map { "\($0.key)=\($0.value)" }
    }
}

/// Becomes another program, which keeps descriptors, terminal and environment. C: `execv`.
///
/// - Throws: errno: ENOENT or EACCES for a program that cannot be run.
package func becomeProgram(_ program: FilePath, _ arguments: [String]) throws(Errno) -> Never {
    _ = unsafe withCStrings([program.string] + arguments) { unsafe execv(program.string, $0) }
    throw Errno(rawValue: errno)
}

/// Runs `body` with the strings as a C array that ends in NULL.
private func withCStrings<Result>(
    _ strings: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
    var pointers = unsafe strings.map { unsafe strdup($0) } + [nil]
    defer { for index in unsafe pointers.indices { unsafe free(pointers[index]) } }
    return unsafe pointers.withUnsafeMutableBufferPointer { unsafe body($0.baseAddress!) }
}
