// SPDX-License-Identifier: Apache-2.0
//
// The lab: a VM that boots a kernel of ours on the host's root file system and runs one command.

import Glibc
import LinuxSystem
public import SystemPackage

/// Boots the lab.
///
/// Both calls block until the VM is gone. While ``run(_:console:)`` waits, SIGINT, SIGTERM and SIGHUP end the VM
/// instead of this process; call it before other threads start.
public struct LabMachine: Sendable {
    /// What to boot and how.
    public let configuration: LabConfiguration
    private let cache: LabCache
    private let boot: BootCommand

    /// Checks that everything is there that a boot needs.
    ///
    /// - Throws: what is missing, and how to get it.
    public init(_ configuration: LabConfiguration, cache: LabCache = LabCache()) throws(LabError) {
        let image = try cache.image(of: configuration.kernel)
        if let path = cache.missingVirtme { throw .virtmeMissing(path) }
        guard isInPath("qemu-system-x86_64") else { throw .qemuMissing }
        if configuration.accelerator == .kvm {
            do throws(Errno) {
                _ = try OwnedDescriptor.open("/dev/kvm", .readWrite)
            } catch {
                throw .kvmUnusable(error)
            }
        }
        for path in [cache.directory, image] where BootCommand.hides(path) { throw .hidden(path) }
        let parameters = [configuration.directory.string, cache.directory.string] + configuration.kernelParameters
        for text in parameters where text.contains(where: { " \t\n\"'".contains($0) }) { throw .unspeakable(text) }
        for path in [cache.directory, configuration.directory] where path.string.contains(",") {
            throw .unspeakable(path.string)
        }
        self.configuration = configuration
        self.cache = cache
        boot = BootCommand(configuration: configuration, image: image)
    }

    /// Boots the VM, runs a command in it, and streams what it prints to this process's standard output and error.
    ///
    /// A boot that stalls is tried once more; nothing else is.
    ///
    /// - Parameters:
    ///   - command: the program and its arguments, run as root in the configuration's directory.
    ///   - console: where to keep the console log; what was there is replaced.
    public func run(_ command: [String], console: FilePath) throws(LabError) -> LabResult {
        let log = try openLog(console)
        let signals = try takeSignals()
        // A reader that went away must end the VM, not this process before it.
        _ = signal(SIGPIPE, SIG_IGN)
        announce("booting \(boot.image.lastComponent?.string ?? "the kernel"), console log in \(console.string)")
        var result = try attempt(command, log: log, signals: signals)
        if case .bootStalled = result {
            announce("the boot stalled: nothing ran within \(configuration.bootLimit) s; trying once more")
            result = try attempt(command, log: log, signals: signals)
        }
        if case .exited = result { return result }
        announce("\(result)")
        announce("see \(console.string)")
        return result
    }

    /// Boots the VM with a root shell on this process's terminal.
    ///
    /// - Returns: virtme-ng's exit status: 0 however the shell ended, unless the VM could not be started.
    public func shell() throws(LabError) -> Int32 {
        let signals = try takeSignals([SIGCHLD])
        let directory = try TemporaryDirectory(in: cache.directory.appending("run"))
        let script = try directory.write("shell", guestScript.shell)
        let child = try start(
            boot.arguments(shell: script), in: directory.path,
            descriptors: .init(input: STDIN_FILENO, output: STDOUT_FILENO, error: STDERR_FILENO))
        // Taking the terminal back, from the background, must not stop this process.
        _ = signal(SIGTTOU, SIG_IGN)
        child.takeTerminal()
        defer { _ = tcsetpgrp(STDIN_FILENO, getpgrp()) }
        while true {
            if let status = child.statusIfEnded() { return status }
            var event = pollfd(fd: signals.descriptor.rawValue, events: Int16(POLLIN), revents: 0)
            _ = unsafe poll(&event, 1, -1)
            if let signal = signals.take(), signal != SIGCHLD { child.signalGroup(SIGHUP) }
        }
    }

    private func takeSignals(_ more: [CInt] = []) throws(LabError) -> SignalDescriptor {
        do throws(Errno) {
            return try SignalDescriptor(taking: [SIGINT, SIGTERM, SIGHUP] + more)
        } catch {
            throw .systemCall("signalfd", error)
        }
    }

    /// Starts virtme-ng so that SIGHUP reaches QEMU alone: that ends, virtme-run waits for it and leaves nothing behind.
    private func start(
        _ arguments: [String], in directory: FilePath, descriptors: ChildProcess.StandardDescriptors
    ) throws(LabError) -> ChildProcess {
        do throws(Errno) {
            return try ChildProcess(
                "/usr/bin/env", ["--ignore-signal=HUP", cache.virtmeRun.string] + arguments,
                // Its temporary files go where they are cleaned up whatever happens to it.
                environment: ["TMPDIR": directory.string], descriptors: descriptors)
        } catch {
            throw .systemCall("start \(cache.virtmeRun)", error)
        }
    }

    private func attempt(
        _ command: [String], log: borrowing OwnedDescriptor, signals: borrowing SignalDescriptor
    ) throws(LabError) -> LabResult {
        let directory = try TemporaryDirectory(in: cache.directory.appending("run"))
        let script = try directory.write("command", guestScript.running(command))
        let standardError = try directory.makeFIFO("stderr")
        let output = try Pipe()
        let console = try Pipe()
        let null = try openNull()
        let child = try start(
            boot.arguments(running: script, standardError: directory.path.appending("stderr")), in: directory.path,
            descriptors: .init(
                input: null.rawValue, output: output.writing.rawValue, error: console.writing.rawValue))
        var machine = RunningMachine(
            child: child, output: output.closingWriting(), standardError: standardError,
            console: console.closingWriting())
        return machine.watch(
            bootLimit: configuration.bootLimit, timeLimit: configuration.timeLimit, log: log, signals: signals)
    }

    private var guestScript: GuestScript {
        GuestScript(directory: configuration.directory, path: variable("PATH") ?? "")
    }

    private func openLog(_ path: FilePath) throws(LabError) -> OwnedDescriptor {
        try makeDirectories(path.removingLastComponent())
        do {
            let log = try FileDescriptor.open(
                path, .writeOnly, options: [.create, .truncate, .closeOnExec], permissions: .ownerReadWrite)
            return OwnedDescriptor(adopting: log.rawValue)
        } catch {
            throw .systemCall("open \(path.string)", error as? Errno ?? .ioError)
        }
    }

    private func openNull() throws(LabError) -> OwnedDescriptor {
        do throws(Errno) {
            return try OwnedDescriptor.open("/dev/null", .readWrite)
        } catch {
            throw .systemCall("open /dev/null", error)
        }
    }
}

/// Tells the user something about the lab itself.
func announce(_ text: String) {
    _ = try? FileDescriptor.standardError.writeAll("lab: \(text)\n".utf8)
}

/// Whether a program of that name can be run. C: `access`.
private func isInPath(_ program: String) -> Bool {
    (variable("PATH") ?? "").split(separator: ":").contains { directory in
        unsafe access("\(directory)/\(program)", X_OK) == 0
    }
}
