// SPDX-License-Identifier: Apache-2.0
//
// Operations on who holds what, and the end of a run.

import CFuzz
import CKVMUser
import Glibc
import GuestPrograms
import LinuxSystem
import SeededRandom

extension FuzzDriver {
    // MARK: The emulation descriptor

    func open(_ device: FuzzedDevice, _ flags: UInt32) throws {
        arena.put(kvm_dev_user_emulation_fd(flags: flags, pad: 0), at: arena.start)
        let result = control(device, CKVMUSER_EMULATION_FD, arena.start)
        if model(device).isOpen { return try expect(result, [-EBUSY], "a second EMULATION_FD") }
        try demand(result >= 0, "EMULATION_FD gave \(result)")
        device.descriptors = [CInt(result)]
        device.isNonBlocking = flags & UInt32(O_NONBLOCK) != 0
        model(device).opened(at: model.now)
    }

    func duplicate(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard !device.descriptors.isEmpty, device.descriptors.count < 4 else { return }
        let number = cfuzz_duplicate(random.pick(device.descriptors))
        try demand(number >= 0, "F_DUPFD gave \(number)")
        device.descriptors.append(CInt(number))
    }

    func close(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard !device.descriptors.isEmpty else { return }
        // A steady device holds what comes meanwhile, where the kernel can do that.
        guard !device.isSteady || device.has(CKVMUSER_FEATURE_ON_CLOSE) || device.descriptors.count > 1 else { return }
        // Some with requests that nobody has replied to.
        if random.oneIn(2) { try read(device, &random) }
        let all = random.oneIn(2)
        repeat {
            let number = device.descriptors.remove(at: random.below(device.descriptors.count))
            try expect(cfuzz_close(number), [0], "close")
        } while all && !device.descriptors.isEmpty
        try noteClosed(device)
    }

    private func noteClosed(_ device: FuzzedDevice) throws {
        let isHeld = children.contains { $0.devices.contains(device.index) }
        guard device.descriptors.isEmpty && !isHeld && model(device).isOpen else { return }
        try closeRing(device)
        model(device).closed(at: model.now)
    }

    /// Sends a descriptor over a socket, closes it here, and takes it out again.
    func pass(_ device: FuzzedDevice, _ random: inout SeededGenerator) throws {
        guard !device.descriptors.isEmpty else { return }
        let number = device.descriptors.remove(at: random.below(device.descriptors.count))
        let sockets = try UnixSocket.pair()
        try sockets.first.send([1], descriptors: [number])
        try expect(cfuzz_close(number), [0], "close")
        // For a moment the message may be the only holder.
        try poll(device)
        var message = try sockets.second.receive(capacity: 1, descriptors: 1)
        guard let descriptor = message.takeDescriptor() else { throw Discrepancy("the socket lost the descriptor") }
        device.descriptors.append(descriptor.release())
    }

    // MARK: Other processes

    func fork() throws {
        guard children.count < 2 else { return }
        let child = cfuzz_fork_holder()
        try demand(child > 0, "fork gave \(child)")
        children.append((child, Set(devices.filter { !$0.descriptors.isEmpty }.map(\.index))))
    }

    func endFork() throws {
        guard !children.isEmpty else { return }
        cfuzz_end_child(children.removeFirst().process)
        for device in devices { try noteClosed(device) }
    }

    /// Only the process that made the machine may configure it.
    func foreignCall(_ device: FuzzedDevice) throws {
        guard let number = device.controlNumber else { return }
        try expect(cfuzz_fork_ioctl(number, UInt64(CKVMUSER_INFO), arena.start), [-EIO], "INFO in another process")
    }

    // MARK: The end

    /// Ends the guest with stores in the queues, then the machine, and asks what is left.
    func tearDown() throws {
        for device in devices { try leaveStores(device) }
        while !model.isIdle {
            usleep(300)
            try harvest()
        }
        try machine?.end()
        var random = SeededGenerator(seed: plan.seed)
        let emulationFirst = random.oneIn(2)
        if emulationFirst, let device = devices.last { try closeAll(device) }
        for device in devices { device.control = nil }
        machine = nil
        for device in devices { try checkOrphan(device) }
        for device in devices {
            try closeAll(device)
            for mapping in device.mappings { try checkMapping(mapping, device) }
        }
    }

    private func closeAll(_ device: FuzzedDevice) throws {
        for number in device.descriptors { try expect(cfuzz_close(number), [0], "close") }
        device.descriptors = []
        try noteClosed(device)
    }

    /// Has vCPU 0 store to where the device answers, as often as there is surely space.
    private func leaveStores(_ device: FuzzedDevice) throws {
        guard let place = model(device).current.first(where: { $0.bus == .memory && $0.length >= 8 }) else { return }
        for value in 0..<min(plan.depth, 4) {
            try issue(.store(UInt128(value), 1, at: place.address), on: 0, to: device)
        }
        try machine?.wake(0)
    }

    /// A device whose virtual machine is gone: what is pending, then the end of the file; ENODEV for all else.
    private func checkOrphan(_ device: FuzzedDevice) throws {
        guard let number = device.descriptors.first else { return }
        let events = cfuzz_poll(number)
        try demand(events & Int64(POLLHUP) != 0, "poll without a machine says \(hex(events))")
        if let ring = device.ring {
            // What is in the ring is there, whatever is gone.
            try syncRing(device)
            try dropRing(device, ring)
            model(device).outstanding = [:]
        }
        while true {
            let result = cfuzz_read(number, arena.start, 4 * Self.requestSize)
            try demand(result >= 0, "read without a machine gave \(result)")
            if result == 0 { break }
            let count = Int(result) / Self.requestSize
            try model.read(arena.requests(count, at: arena.start), from: device.index, room: 4)
            for sequence in model(device).outstanding.keys { model(device).outstanding[sequence] = nil }
        }
        if let piece = model.certainlyPending(device.index) { throw Discrepancy("without a machine \(piece) is lost") }
        try expect(cfuzz_write(number, arena.start, Self.requestSize), [-ENODEV], "write without a machine")
        for command in [
            CKVMUSER_INFO, CKVMUSER_EXCHANGE, CKVMUSER_SHADOW_SIZE, CKVMUSER_SHADOW_CTRL, CKVMUSER_RING,
            CKVMUSER_RING_ENTER, 0xaeff,
        ] {
            let result = cfuzz_ioctl(number, UInt64(command), arena.start)
            try expect(result, [-ENODEV], "\(hex(command)) without a machine")
        }
    }
}
