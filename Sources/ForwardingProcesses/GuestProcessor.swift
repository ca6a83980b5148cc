// SPDX-License-Identifier: Apache-2.0
//
// A vCPU that runs one guest program after the other, with the model of what the device must answer.

import GuestPrograms
import KVM
import Synchronization

/// A vCPU, and what its accesses must have done to the device.
final class GuestProcessor: Sendable {
    let index: UInt32
    private let guest: GuestMachine
    private let placement: DevicePlacement
    private let gate: PauseGate
    private let respond: GuestExitHandler
    private let vcpu: Mutex<VirtualCPU>
    private let interrupter: VirtualCPUInterrupter
    private let progress: Mutex<(model: DeviceModel, report: GuestReport)>

    init(
        _ index: UInt32, in guest: GuestMachine, _ placement: DevicePlacement, behind gate: PauseGate,
        respond: @escaping GuestExitHandler
    ) throws(KVMError) {
        self.index = index
        self.guest = guest
        self.placement = placement
        self.gate = gate
        self.respond = respond
        let vcpu = try guest.makeVirtualCPU(id: index)
        interrupter = vcpu.interrupter
        self.vcpu = Mutex(vcpu)
        progress = Mutex((DeviceModel(memory: placement.memory), GuestReport()))
    }

    /// What its accesses must have done.
    var model: DeviceModel { progress.withLock(\.model) }
    /// What its accesses left at an offset.
    func finalByte(_ offset: UInt64) -> UInt8 { progress.withLock { $0.model[offset] } }
    /// What came of them.
    var report: GuestReport { progress.withLock(\.report) }

    /// Runs a program to its end, and compares each value that it loaded.
    ///
    /// - Throws: ``ProgramError``, what the exit handler throws, ``KVMError``.
    func run(_ step: ProgramStep, seed: UInt64) throws {
        let target = try placement.target(step, seed: seed, vcpu: index)
        let results = try run(step.program, target.arguments)
        progress.withLock { progress in
            var values = results.values.makeIterator()
            for (position, access) in step.program.accesses(target.arguments).enumerated() {
                progress.report.accesses += 1
                guard let expected = progress.model.perform(access, base: target.base) else { continue }
                for half in 0..<(access.length > 8 ? 2 : 1) {
                    // A guest that kept too few values has other values in the rest.
                    let wanted = UInt64(truncatingIfNeeded: expected >> UInt128(64 * half))
                    progress.report.check(
                        values.next() ?? ~wanted, wanted,
                        "vCPU \(index), \(step.program.name), access \(position), \(access)")
                }
            }
            progress.report.check(
                results.checksum, GuestResults.checksum(of: results.values),
                "vCPU \(index), \(step.program.name), the guest's own checksum")
            progress.report.requests = progress.model.requests
        }
    }

    /// Runs a program and gives what it left.
    func run(_ program: GuestProgram, _ arguments: GuestProgram.Arguments) throws -> GuestResults {
        try vcpu.withLock { vcpu in
            try guest.load(program, arguments, on: &vcpu)
            gate.enter()
            defer { gate.leave() }
            try vcpu.runProgram { [gate, respond] exit, vcpu in
                guard exit == .interrupted else { return try respond(exit, &vcpu) }
                gate.leave()
                gate.enter()
            }
        }
        return try guest.results(of: index)
    }

    /// Has it come out of the guest, if it is in there.
    func interrupt() {
        interrupter.interrupt()
    }
}
