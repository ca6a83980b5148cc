// SPDX-License-Identifier: Apache-2.0
//
// A guest program on a thread of its own.

import Glibc
public import KVM
import LinuxSystem
import Synchronization
import SystemPackage

/// What to do about an exit of a vCPU: answer a load, note a store, or throw.
public typealias GuestExitHandler = @Sendable (VirtualCPU.Exit, inout VirtualCPU) throws -> Void

/// A vCPU stopped for a reason that nobody had expected.
public struct UnexpectedExit: Error, Hashable, Sendable, CustomStringConvertible {
    /// The vCPU.
    public let vcpu: UInt32
    /// Why it stopped.
    public let exit: VirtualCPU.Exit

    /// Says which vCPU, and why it stopped: for exit handlers to throw.
    public init(vcpu: UInt32, exit: VirtualCPU.Exit) {
        self.vcpu = vcpu
        self.exit = exit
    }

    /// Which vCPU, and why.
    public var description: String { "vCPU \(vcpu) stopped unexpectedly: \(exit)" }
}

/// Throws ``UnexpectedExit``: for programs all of whose accesses the kernel handles.
public let unexpectedExit: GuestExitHandler = { exit, vcpu in throw UnexpectedExit(vcpu: vcpu.id, exit: exit) }

extension VirtualCPU {
    /// Runs a guest program to its end on the calling thread.
    ///
    /// - Parameter respond: called for each exit but the program's end, ``Exit/interrupted`` as well.
    /// - Throws: ``KVMError`` of a run, and whatever `respond` throws.
    public mutating func runProgram(_ respond: GuestExitHandler = unexpectedExit) throws {
        while true {
            let exit = try run()
            if case .portStore(let access) = exit, access.port == GuestProgram.endPort { return }
            try respond(exit, &self)
        }
    }
}

/// A guest program that runs on a thread of its own: made by ``GuestMachine/start(_:_:on:respond:)``.
///
/// The thread does not end with this object: ``join()``, or let it be until the program ends.
public final class RunningProgram: Sendable {
    /// The vCPU.
    public let vcpu: UInt32
    /// Ends the vCPU's current run; the exit handler then gets `.interrupted`.
    public let interrupter: VirtualCPUInterrupter
    private let guest: GuestMachine
    private let outcome = Outcome()

    init(_ vcpu: consuming VirtualCPU, in guest: GuestMachine, _ respond: @escaping GuestExitHandler) throws {
        self.vcpu = vcpu.id
        self.guest = guest
        interrupter = vcpu.interrupter
        let work = Work(vcpu, outcome, respond)
        do {
            try NativeThread { work.run() }.detach()
        } catch {
            throw KVMError(call: "pthread_create", errno: error)
        }
    }

    /// Whether the program has ended, or its thread has thrown.
    public var hasEnded: Bool { outcome.result.withLock { $0 != nil } }

    /// Waits until the program has ended; its vCPU is closed then.
    ///
    /// - Returns: what it left.
    /// - Throws: what the exit handler threw; ``KVMError`` of a run.
    public func join() throws -> GuestResults {
        while !hasEnded { usleep(200) }
        try outcome.result.withLock { try $0?.get() }
        return try guest.results(of: vcpu)
    }

    /// How the thread ended.
    private final class Outcome: Sendable {
        let result = Mutex<Result<Void, any Error>?>(nil)
    }

    /// What the thread owns.
    private final class Work: @unchecked Sendable {
        // SAFETY (@unchecked Sendable): made by one thread and then handed over to another, never shared.
        private var vcpu: VirtualCPU?
        private let outcome: Outcome
        private let respond: GuestExitHandler

        init(_ vcpu: consuming VirtualCPU, _ outcome: Outcome, _ respond: @escaping GuestExitHandler) {
            self.vcpu = consume vcpu
            self.outcome = outcome
            self.respond = respond
        }

        func run() {
            let result = Result { try vcpu?.runProgram(respond) }
            // Before anybody is told: whoever waits may count on the vCPU being closed.
            vcpu = nil
            outcome.result.withLock { $0 = result.map { _ in () } }
        }
    }
}
