// SPDX-License-Identifier: Apache-2.0
//
// The virtual machine of a run: vCPUs that work on their lists, and what they brought to the VMM.

import CFuzz
import CKVMUser
import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import MMIOForwarding
import Synchronization
import SystemPackage

/// vCPUs that run ``GuestProgram/script``, each on its thread.
final class FuzzedMachine: Sendable {
    let guest: GuestMachine
    let scripts: [GuestScript]
    private let programs: [RunningProgram]
    private let logs: [ExitLog]

    static let scriptCapacity = 256

    /// An access that went to the VMM, and what the VMM gave.
    struct VMMAccess: Sendable {
        let fragment: GuestAccess
        let given: UInt64
    }

    init(vcpus: Int) throws {
        let guest = try GuestMachine(
            in: try KVMSystem().makeVirtualMachine(), vcpus: vcpus, capacity: 16 * Self.scriptCapacity)
        self.guest = guest
        scripts = (0..<vcpus).map { guest.script(of: UInt32($0), capacity: Self.scriptCapacity) }
        let logs = try (0..<vcpus).map { try ExitLog(vcpu: $0) }
        self.logs = logs
        programs = try (0..<vcpus).map { index in
            try guest.start(.script, .init(target: 0, count: Self.scriptCapacity), on: UInt32(index)) { exit, vcpu in
                try logs[index].respond(exit, &vcpu)
            }
        }
    }

    /// Has a vCPU look at its list.
    func wake(_ vcpu: Int) throws { try logs[vcpu].wake.signal() }

    /// Sends a vCPU's thread a signal.
    func interrupt(_ vcpu: Int) { programs[vcpu].interrupter.interrupt() }

    /// From now on vCPUs ask this device whether an access that they exit for is a parked one.
    func mayPark(_ device: ParkingDevice) { guest.machine.add(device) }

    /// What went to the VMM since the last call.
    func takeExits(_ vcpu: Int) -> [VMMAccess] { logs[vcpu].take() }

    /// Throws what ended a vCPU's thread too early.
    func check() throws {
        for program in programs where program.hasEnded { _ = try program.join() }
    }

    /// Ends the vCPUs, which must be idle.
    func end() throws {
        for vcpu in scripts.indices {
            try scripts[vcpu].end()
            try wake(vcpu)
        }
        for program in programs { _ = try program.join() }
    }
}

/// A device that parks accesses.
final class ParkingDevice: ParkedAccesses {
    /// Its control descriptor.
    private let control: CInt
    /// Where its area is.
    private let memory: Range<UInt64>
    /// Whether vCPUs run on from some accesses without asking the device.
    private let abandons: Bool
    private let count = Atomic<UInt64>(0)

    init(control: CInt, memory: Range<UInt64>, abandons: Bool) {
        self.control = control
        self.memory = memory
        self.abandons = abandons
    }

    func resume(_ access: VirtualCPU.MemoryAccess, of vcpu: UInt32) throws(KVMError) -> AccessResumption {
        guard memory.contains(access.address) else { return .notParked }
        let number = count.add(1, ordering: .relaxed).newValue
        if abandons && scrambled(number) % 8 == 0 { return .notParked }
        var raw = kvm_dev_user_resume(addr: access.address, data: 0, vcpu: vcpu, pad: 0)
        let result = unsafe withUnsafeMutablePointer(to: &raw) {
            cfuzz_ioctl(control, UInt64(CKVMUSER_RESUME), UInt64(UInt(bitPattern: $0)))
        }
        switch result {
        case 0: return .complete(raw.data)
        case Int64(-ENOENT): return .notParked
        case Int64(-EINTR): return .interrupted
        case let error: throw KVMError(call: "KVM_DEV_USER_RESUME", errno: Errno(rawValue: CInt(-error)))
        }
    }
}

/// What a vCPU's thread does at exits.
private final class ExitLog: Sendable {
    let wake: EventDescriptor
    private let vcpu: Int
    private let state = Mutex(State())

    private struct State {
        var accesses: [FuzzedMachine.VMMAccess] = []
        var count: UInt64 = 0
    }

    init(vcpu: Int) throws {
        self.vcpu = vcpu
        wake = try EventDescriptor()
    }

    func take() -> [FuzzedMachine.VMMAccess] {
        state.withLock { state in
            defer { state.accesses = [] }
            return state.accesses
        }
    }

    func respond(_ exit: VirtualCPU.Exit, _ cpu: inout VirtualCPU) throws {
        switch exit {
        case .interrupted: break
        case .portStore(let access) where access.port == GuestProgram.idlePort: _ = try wake.wait()
        case .portStore(let access):
            note(.store(UInt128(cpu.portValue()), access.length, at: UInt64(access.port), on: .port))
        case .portLoad(let access):
            cpu.setPortValue(
                UInt32(truncatingIfNeeded: note(.load(access.length, at: UInt64(access.port), on: .port))))
        case .mmioLoad(let access):
            cpu.setLoadedValue(note(.load(access.length, at: access.address)))
        case .mmioStore(let access, let value):
            note(.store(UInt128(value), access.length, at: access.address))
        default: throw UnexpectedExit(vcpu: UInt32(vcpu), exit: exit)
        }
    }

    /// Answers an access itself.
    @discardableResult private func note(_ fragment: GuestAccess) -> UInt64 {
        state.withLock { state in
            state.count += 1
            // Never all-ones, in no byte.
            let given = scrambled(state.count << 8 | UInt64(vcpu)) & 0x7f7f_7f7f_7f7f_7f7f
            state.accesses.append(FuzzedMachine.VMMAccess(fragment: fragment, given: given))
            return given
        }
    }
}
