// SPDX-License-Identifier: Apache-2.0
//
// Operations on the control descriptor.

import CFuzz
import CKVMUser
import Glibc
import GuestPrograms
import SeededRandom

extension FuzzDriver {
    /// Where a range goes.
    typealias Place = (bus: GuestAccess.Bus, address: UInt64, length: UInt64)

    // MARK: Ranges

    func range(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        let id: UInt32 = random.pick([0, 0, 1, 1, 2, 3, 4, 5])
        if random.oneIn(8) { return try place(device, id, nil) }
        let bus: GuestAccess.Bus = random.oneIn(5) ? .port : .memory
        let area = bus == .port ? device.ports : device.memory
        let step: UInt64 = bus == .port ? 4 : 0x800
        let length = bus == .port ? random.pick([1, 2, 4, 8, 0x20]) : random.pick([8, 0x40, 0x800, 0x1000, 0x2000])
        let address = area.lowerBound + step * UInt64(random.below(16)) + (random.oneIn(8) ? 3 : 0)
        guard address + UInt64(length) <= area.upperBound else { return }
        try place(device, id, (bus, address, UInt64(length)))
    }

    /// Places, moves or removes a range.
    func place(_ device: FuzzedDevice, _ id: UInt32, _ place: Place?) throws {
        let deviceModel = model(device)
        var raw = kvm_dev_user_pa_range(addr: 0, len: 0, bus: 0, id: id, flags: 0, pad: 0)
        var expected: Int32 = deviceModel.current(id) == nil ? -ENOENT : 0
        if let place {
            raw.addr = place.address
            raw.len = place.length
            raw.bus = UInt32(place.bus == .port ? KVM_USER_BUS_PIO : KVM_USER_BUS_MMIO)
            let overlaps = deviceModel.current.contains {
                $0.id != id && $0.overlaps(place.bus, place.address, place.length)
            }
            expected = overlaps ? -EEXIST : 0
        }
        arena.put(raw, at: arena.start)
        try expect(control(device, CKVMUSER_PA_RANGE, arena.start), [expected], "PA_RANGE \(raw)")
        if expected == 0 { deviceModel.place(id, at: place, model.now) }
    }

    func badRange(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        var raw = kvm_dev_user_pa_range(
            addr: device.memory.lowerBound, len: 8, bus: UInt32(KVM_USER_BUS_MMIO), id: 0, flags: 0, pad: 0)
        switch random.below(7) {
        case 0: raw.flags = 1 << UInt32(random.below(32))
        case 1: raw.pad = 1 << UInt32(random.below(32))
        case 2: raw.id = 64 + UInt32(truncatingIfNeeded: random.next()) / 2
        case 3: raw.bus = 2 + UInt32(random.below(1000))
        case 4: raw.addr = UInt64.max - UInt64(random.below(7))
        case 5: (raw.bus, raw.addr) = (UInt32(KVM_USER_BUS_PIO), 0xfff9 + random.next() % 0x10_0000)
        default: raw.len = 0x8000_0000 + random.next() / 2
        }
        arena.put(raw, at: arena.start)
        try expect(control(device, CKVMUSER_PA_RANGE, arena.start), [-EINVAL], "PA_RANGE \(raw)")
    }

    // MARK: Policies

    func timeout(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        let nanoseconds: UInt64 =
            device.isSteady
            ? random.pick([0, 3_600_000_000_000, .max]) : random.pick([1, 1_000_000, 20_000_000, 0, 300_000_000])
        arena.put(nanoseconds, at: arena.start)
        // Before it: an access may wait with the new limit before the call is over.
        if nanoseconds != 0 && !device.isSteady { model(device).limitWaits(at: model.now) }
        try expect(control(device, CKVMUSER_TIMEOUT, arena.start), [0], "TIMEOUT \(nanoseconds)")
    }

    func onClose(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        if random.oneIn(4) {
            let policy = random.oneIn(2) ? 3 + UInt32(random.below(1000)) : 0
            arena.put(kvm_dev_user_on_close(policy: policy, pad: policy == 0 ? 1 : 0), at: arena.start)
            let expected = device.has(CKVMUSER_FEATURE_ON_CLOSE) ? -EINVAL : -ENOTTY
            return try expect(control(device, CKVMUSER_ON_CLOSE, arena.start), [expected], "ON_CLOSE \(policy)")
        }
        let policies = device.isSteady ? [KVM_USER_ON_CLOSE_HOLD] : [0, 1, 2]
        try setPolicy(device, UInt32(random.pick(policies)))
    }

    func setPolicy(_ device: FuzzedDevice, _ policy: UInt32) throws {
        arena.put(kvm_dev_user_on_close(policy: policy, pad: 0), at: arena.start)
        let present = device.has(CKVMUSER_FEATURE_ON_CLOSE)
        try expect(control(device, CKVMUSER_ON_CLOSE, arena.start), [present ? 0 : -ENOTTY], "ON_CLOSE \(policy)")
        if present { model(device).setPolicy(policy, at: model.now) }
    }

    // MARK: Parking

    func park(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        let present = device.has(CKVMUSER_FEATURE_PARK)
        let enable: UInt32 = random.pick([0, 1, 1, 1, 2])
        let pad: UInt32 = random.oneIn(4) ? 1 : 0
        if present && enable == 1 && pad == 0 && !model(device).mayPark, let control = device.controlNumber {
            model(device).mayPark = true
            model(device).mayAbandon = !device.isSteady
            machine?.mayPark(
                ParkingDevice(
                    control: control, memory: device.memory, abandons: !device.isSteady))
        }
        arena.put(kvm_dev_user_park(enable: enable, pad: pad), at: arena.start)
        let expected = !present ? -ENOTTY : enable > 1 || pad != 0 ? -EINVAL : 0
        try expect(control(device, CKVMUSER_PARK, arena.start), [expected], "PARK \(enable), \(pad)")
    }

    func resume(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        let present = device.has(CKVMUSER_FEATURE_PARK)
        if random.oneIn(3) {
            return try expect(control(device, CKVMUSER_RESUME, arena.end), [present ? -EFAULT : -ENOTTY], "RESUME")
        }
        let exists = random.oneIn(2)
        // Where accesses may be parked it would take one away from the thread that waits for it.
        guard !exists || !model(device).mayPark else { return }
        // Above all that a machine may have.
        let vcpu = exists ? random.below(plan.vcpus) : (1 << 20) + random.below(1 << 30)
        let address = device.memory.lowerBound
        arena.put(
            kvm_dev_user_resume(addr: address, data: random.next(), vcpu: UInt32(vcpu), pad: 0), at: arena.start)
        let expected = !present ? -ENOTTY : exists ? -ENOENT : -EINVAL
        try expect(control(device, CKVMUSER_RESUME, arena.start), [expected], "RESUME of vCPU \(vcpu)")
    }

    // MARK: The rest

    func information(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        // Both descriptors answer, in kernels that have any of the features.
        let both = device.features != 0 && random.oneIn(2)
        if both && device.descriptors.isEmpty { return }
        let call = { (address: UInt64) -> Int64 in
            both
                ? cfuzz_ioctl(device.descriptors[0], UInt64(CKVMUSER_INFO), address)
                : self.control(device, CKVMUSER_INFO, address)
        }
        if random.oneIn(3) { return try expect(call(arena.end - 8), [-EFAULT], "INFO that faults") }
        try expect(call(arena.start), [0], "INFO")
        let raw = arena.get(kvm_dev_user_info(), at: arena.start)
        try demand(
            raw.abi_version == 1 && Int(raw.queue_depth) == plan.depth && raw.features == device.features
                && (!device.has(CKVMUSER_FEATURE_SHADOW) || raw.shadow_size == model(device).shadow.size),
            "INFO says \(raw)")
    }

    func badControlCall(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        switch random.below(4) {
        case 0:
            // Not a command of this device.
            let command = random.pick([
                CKVMUSER_EXCHANGE, CKVMUSER_SHADOW_CTRL, CKVMUSER_SHADOW_SIZE, CKVMUSER_RING, CKVMUSER_RING_ENTER,
                0xaeff, 0xaef0,
            ])
            try expect(control(device, command, arena.start), [-ENOTTY], "command \(hex(command))")
        case 1:
            let command = random.pick([CKVMUSER_INFO, CKVMUSER_EMULATION_FD, CKVMUSER_PA_RANGE, CKVMUSER_TIMEOUT])
            let address = random.pick([0, arena.end, arena.end - 4, UInt64.max - 100, 1 << 63])
            try expect(control(device, command, address), [-EFAULT], "\(hex(command)) at \(hex(address))")
        case 2:
            let flags = random.oneIn(2) ? UInt32(O_APPEND | O_CLOEXEC) : 0
            arena.put(kvm_dev_user_emulation_fd(flags: flags, pad: flags == 0 ? 7 : 0), at: arena.start)
            try expect(control(device, CKVMUSER_EMULATION_FD, arena.start), [-EINVAL], "EMULATION_FD \(flags)")
        default:
            guard let number = device.controlNumber else { return }
            try expect(cfuzz_read(number, arena.start, 40), [-EINVAL], "read of the control descriptor")
            try expect(cfuzz_write(number, arena.start, 40), [-EINVAL], "write to the control descriptor")
        }
    }
}
