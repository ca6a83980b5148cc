// SPDX-License-Identifier: Apache-2.0
//
// The rule B4: a signal takes a vCPU out of an access, and guest and emulation process notice nothing of it.

import CKVMUser
import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import MMIOForwarding
import Synchronization
import SystemPackage
import Testing

@Suite("Parking")
struct ParkingTests {
    /// Runs `body` with vCPUs that stay out of the guest from a signal on.
    private func withParking(
        vcpus: Int = 1, timeout: Duration? = .seconds(60), _ body: (ForwardedGuest, SignalHold) throws -> Void
    ) throws {
        let hold = SignalHold()
        try ForwardedGuest.run(vcpus: vcpus, timeout: timeout, respond: hold.respond) { guest in
            // Whatever fails: the guest can be ended.
            defer { hold.end() }
            try guest.control.setParking(true)
            try body(guest, hold)
        }
    }

    /// Signals a vCPU that waits in the module, and waits until it is out; gives the access that it is in.
    private func park(_ guest: ForwardedGuest, _ hold: SignalHold, _ vcpu: UInt32 = 0) throws -> VirtualCPU.Exit? {
        guest.interrupt(Int(vcpu))
        try #require(eventually { hold.held[vcpu] != nil }, "vCPU \(vcpu) did not come out")
        return hold.held[vcpu]?.parked
    }

    /// The exit for a load as ``GuestAccess/deviceLoad(_:_:)`` has it.
    private func load(_ length: Int = 4, _ offset: UInt64 = 0) -> VirtualCPU.Exit {
        .mmioLoad(.init(address: ForwardedGuest.base + offset, length: length))
    }

    private func store(_ value: UInt64, _ length: Int = 4, _ offset: UInt64 = 0) -> VirtualCPU.Exit {
        .mmioStore(.init(address: ForwardedGuest.base + offset, length: length), value)
    }

    /// The errno of an ioctl with any argument, nil if it succeeds.
    private func errno<Argument: BitwiseCopyable>(
        _ device: borrowing ControlDescriptor, _ command: UInt, _ argument: Argument
    ) -> Errno? {
        var argument = argument
        do throws(Errno) {
            try device.descriptor.ioctl(command, &argument, onInterrupt: .fail)
            return nil
        } catch {
            return error
        }
    }

    // MARK: One access

    @Test("B4: a parked load gets its value, whenever the reply comes, and is requested once")
    func loadParked() throws {
        try withParking { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            for repliesWhileOut in [true, false] {
                let ticket = try guest.begin(.deviceLoad())
                let request = try emulation.take(exactly: 1)[0]
                #expect(try park(guest, hold) == load())
                if repliesWhileOut { try emulation.reply(request, 0x1234_5678) }
                try guest.expectWaiting(ticket)
                hold.release()
                if !repliesWhileOut {
                    try guest.expectWaiting(ticket)
                    try emulation.reply(request, 0x1234_5678)
                }
                #expect(try guest.finish(ticket) == 0x1234_5678)
                #expect(try !emulation.poll(milliseconds: 0).contains(.readable), "the access was made twice")
            }
            #expect(try DebugCounters.ofNewestDevice()["parked"] == 2)
            #expect(try DebugCounters.ofNewestDevice()["requests"] == 2)
        }
    }

    @Test("B4: a load that nobody has read when it is parked is delivered while it is")
    func unreadLoadParked() throws {
        try withParking { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.deviceLoad(8))
            try #require(try eventually { try emulation.poll(milliseconds: 0).contains(.readable) })
            #expect(try park(guest, hold) == load(8))
            try emulation.reply(try emulation.take(exactly: 1)[0], 0x8877_6655_4433_2211)
            hold.release()
            #expect(try guest.finish(ticket) == 0x8877_6655_4433_2211)
        }
    }

    @Test("B4: a load parked again and again, in the run and in RESUME, stays one access", arguments: [1, 2, 4, 8])
    func parkedAgain(length: Int) throws {
        try withParking { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.deviceLoad(length, 0x10))
            let request = try emulation.take(exactly: 1)[0]
            for _ in 0..<20 {
                #expect(try park(guest, hold) == load(length, 0x10))
                hold.release()
            }
            try guest.expectWaiting(ticket)
            try emulation.reply(request, 0xf8f7_f6f5_f4f3_f2f1)
            #expect(try guest.finish(ticket) == 0xf8f7_f6f5_f4f3_f2f1 & ForwardedRequest.mask(length))
            #expect(try !emulation.poll(milliseconds: 0).contains(.readable))
            #expect(try DebugCounters.ofNewestDevice()["parked"] == 1)
        }
    }

    @Test("B4: a parked load waits for the older stores as well (O3)")
    func loadBehindStoreParked() throws {
        try withParking { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            try guest.perform(.deviceStore(1))
            let ticket = try guest.begin(.deviceLoad())
            let requests = try emulation.take(exactly: 2)
            try emulation.reply(requests[1], 0x77)
            #expect(try park(guest, hold) == load())
            hold.release()
            try guest.expectWaiting(ticket)
            #expect(try park(guest, hold) == load())
            try emulation.reply(requests[0])
            hold.release()
            #expect(try guest.finish(ticket) == 0x77)
        }
    }

    @Test("B4: a store parked on a full queue keeps its place, its value, and comes once")
    func storeParked() throws {
        try ModuleUnderTest.withQueueDepth(1) {
            try withParking(vcpus: 2) { guest, hold in
                let emulation = try guest.control.makeEmulationDescriptor()
                try guest.perform(.deviceStore(1))
                let parked = try guest.begin(.deviceStore(2))
                try #require(try eventually { try DebugCounters.ofNewestDevice()["space_waits"] == 1 })
                #expect(try park(guest, hold) == store(2))
                // Who comes later gets space later.
                let later = try guest.begin(.deviceStore(3), on: 1)
                try #require(try eventually { try DebugCounters.ofNewestDevice()["space_waits"] == 2 })
                var values: [UInt64] = []
                for _ in 0..<3 {
                    let requests = try emulation.take(exactly: 1)
                    values += requests.map(\.data)
                    try emulation.acknowledge(requests)
                }
                #expect(values == [1, 2, 3])
                try guest.finish(later, on: 1)
                try guest.expectWaiting(parked)
                hold.release()
                try guest.finish(parked)
                #expect(try !emulation.poll(milliseconds: 0).contains(.readable))
                // And a store that waits for space after it was resumed.
                try guest.perform(.deviceStore(4))
                let fifth = try guest.begin(.deviceStore(5))
                try #require(try eventually { try DebugCounters.ofNewestDevice()["space_waits"] == 3 })
                #expect(try park(guest, hold) == store(5))
                hold.release()
                try guest.expectWaiting(fifth)
                for value: UInt64 in [4, 5] {
                    let requests = try emulation.take(exactly: 1)
                    #expect(requests.map(\.data) == [value])
                    try emulation.acknowledge(requests)
                }
                try guest.finish(fifth)
            }
        }
    }

    @Test("B4: port I/O is not parked, it waits")
    func portNotParked() throws {
        try withParking { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.load(1, at: ForwardedGuest.port, on: .port))
            let request = try emulation.take(exactly: 1)[0]
            for _ in 0..<20 { guest.interrupt(0) }
            try guest.expectWaiting(ticket)
            #expect(hold.held.isEmpty)
            hold.end()
            try emulation.reply(request, 0x5a)
            #expect(try guest.finish(ticket) == 0x5a)
            #expect(try DebugCounters.ofNewestDevice()["parked"] == 0)
        }
    }

    @Test("B4: off in a new device, and again when it is switched off: then a signal ends no wait (B2)")
    func offByDefault() throws {
        let hold = SignalHold()
        try ForwardedGuest.run(respond: hold.respond) { guest in
            defer { hold.end() }
            let emulation = try guest.control.makeEmulationDescriptor()
            for isOff in [true, false, true] {
                if !isOff { try guest.control.setParking(true) }
                let ticket = try guest.begin(.deviceLoad())
                let request = try emulation.take(exactly: 1)[0]
                if isOff {
                    guest.interrupt(0)
                    try guest.expectWaiting(ticket)
                    #expect(hold.held.isEmpty)
                } else {
                    // What is parked when it goes off is still completed.
                    #expect(try park(guest, hold) == load())
                    try guest.control.setParking(false)
                    hold.release()
                }
                try emulation.reply(request, 6)
                if isOff { try #require(eventually { hold.held == [0: .init(parked: nil)] }) }
                hold.release()
                #expect(try guest.finish(ticket) == 6)
            }
        }
    }

    @Test("B4: any signal to the vCPU's thread parks; completeAccess() then completes the instruction and no more")
    func anySignal() throws {
        try ModuleUnderTest.load()
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 3)
        let control = try ControlDescriptor.parking(in: guest.machine, range: 7, length: 0x1000)
        let emulation = try control.makeEmulationDescriptor()
        let isOut = Box(Atomic(false))
        let task = try BackgroundTask {
            // The module counts vCPUs in the order in which they are made.
            var vcpu = try guest.makeVirtualCPU(id: 2)
            try guest.load(.loadLoop(.four), .init(target: ForwardedGuest.base, count: 2), on: &vcpu)
            #expect(vcpu.index == 0)
            #expect(try vcpu.run() == .interrupted)
            #expect(vcpu.parkedAccess == .mmioLoad(.init(address: ForwardedGuest.base, length: 4)))
            isOut.value.store(true, ordering: .releasing)
            #expect(try vcpu.completeAccess() == .interrupted)
            #expect(vcpu.parkedAccess == nil)
            #expect(try vcpu.registers().rax == 0x8899_aabb)
            try vcpu.runProgram()
        }
        let request = try emulation.take(exactly: 1)[0]
        #expect(request.vcpu == 0)
        task.interrupt()
        try #require(eventually { isOut.value.load(ordering: .acquiring) })
        try emulation.reply(request, 0x8899_aabb)
        try emulation.reply(try emulation.take(exactly: 1)[0], 5)
        try task.join()
        #expect(try guest.results(of: 2).values == [0x8899_aabb, 5])
    }

    // MARK: The ioctls

    @Test("PARK and RESUME: padding, unknown values and vCPUs that are not there are EINVAL")
    func badArguments() throws {
        try withParking { guest, _ in
            for raw in [(2, 0), (UInt32.max, 0), (0, 1), (1, 0x8000_0000)] as [(UInt32, UInt32)] {
                let park = kvm_dev_user_park(enable: raw.0, pad: raw.1)
                #expect(errno(guest.control, CKVMUSER_PARK, park) == .invalidArgument)
            }
            for raw in [(0, 1), (0, 0x8000_0000), (1, 0), (1 << 16, 0), (UInt32.max, 0)] as [(UInt32, UInt32)] {
                let resume = kvm_dev_user_resume(addr: ForwardedGuest.base, data: 0, vcpu: raw.0, pad: raw.1)
                #expect(errno(guest.control, CKVMUSER_RESUME, resume) == .invalidArgument)
            }
        }
    }

    @Test(
        "PARK and RESUME: a bad pointer is EFAULT", arguments: [CKVMUSER_PARK, CKVMUSER_RESUME],
        [UInt(0), 8, 0xffff_8000_0000_0000, UInt.max])
    func badPointer(command: UInt, pointer: UInt) throws {
        try ForwardedGuest.run { guest in
            _ = #expect(throws: Errno.badAddress) { try guest.control.descriptor.ioctl(command, pointer) }
        }
    }

    @Test("RESUME: with no room for the data it is EFAULT, and the access stays parked")
    func noRoomForData() throws {
        try withParking { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.deviceLoad())
            let request = try emulation.take(exactly: 1)[0]
            _ = try park(guest, hold)
            try emulation.reply(request, 0x91)
            let page = try ReadOnlyPage()
            #expect(throws: Errno.badAddress) { try guest.control.descriptor.ioctl(CKVMUSER_RESUME, page.address) }
            hold.release()
            #expect(try guest.finish(ticket) == 0x91)
        }
    }

    @Test("RESUME: it does not wait with immediate_exit set, as a signal that came before would be missed")
    func immediateExit() throws {
        try withParking { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.deviceLoad())
            let request = try emulation.take(exactly: 1)[0]
            _ = try park(guest, hold)
            // Its thread is out of the kernel: the signal ends nothing, the flag stays.
            guest.interrupt(0)
            #expect(try guest.control.resume(vcpu: 0, at: ForwardedGuest.base) == .interrupted)
            hold.release()
            try #require(eventually { hold.held[0]?.parked == load() })
            // The flag has been obeyed, and is gone.
            guest.interrupt(0)
            try emulation.reply(request, 0x92)
            hold.release()
            try #require(eventually { hold.held[0] == .init(parked: nil) })
            hold.release()
            #expect(try guest.finish(ticket) == 0x92)
        }
    }

    @Test("RESUME: nothing parked is ENOENT, before, and after it was resumed")
    func nothingParked() throws {
        try withParking { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            #expect(try guest.control.resume(vcpu: 0, at: ForwardedGuest.base) == .notParked)
            let ticket = try guest.begin(.deviceLoad())
            let request = try emulation.take(exactly: 1)[0]
            // A vCPU that waits in KVM_RUN has nothing parked.
            #expect(try guest.control.resume(vcpu: 0, at: ForwardedGuest.base) == .notParked)
            _ = try park(guest, hold)
            try emulation.reply(request, 0x11)
            // The exit that the VMM asks about was another one.
            #expect(try guest.control.resume(vcpu: 0, at: ForwardedGuest.base + 4) == .notParked)
            hold.release()
            #expect(try guest.finish(ticket) == 0x11)
            #expect(try guest.control.resume(vcpu: 0, at: ForwardedGuest.base) == .notParked)
        }
    }

    /// RESUME of vCPU 0 on a thread of its own.
    private func resume(_ guest: ForwardedGuest) throws -> BackgroundTask<AccessResumption> {
        try BackgroundTask { try guest.control.resume(vcpu: 0, at: ForwardedGuest.base) }
    }

    /// Interrupts RESUME until it has ended, whenever it begins to wait.
    private func interrupt(_ task: BackgroundTask<AccessResumption>) throws -> AccessResumption {
        #expect(
            eventually {
                task.interrupt()
                return task.hasEnded
            })
        return try task.join()
    }

    @Test("RESUME: any thread may wait; a signal ends its wait and not the access; a second waiter is EBUSY")
    func resumeWaits() throws {
        let busy = ForwardingError(call: "KVM_DEV_USER_RESUME", errno: .resourceBusy)
        try withParking { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.deviceLoad())
            let request = try emulation.take(exactly: 1)[0]
            _ = try park(guest, hold)
            for _ in 0..<5 {
                let tasks = [try resume(guest), try resume(guest)]
                // Whichever came second is refused at once; the other one waits.
                try #require(eventually { tasks.contains(where: \.hasEnded) })
                let (refused, waiting) = tasks[0].hasEnded ? (tasks[0], tasks[1]) : (tasks[1], tasks[0])
                #expect(throws: busy) { try refused.join() }
                #expect(try interrupt(waiting) == .interrupted)
            }
            try guest.expectWaiting(ticket)
            hold.release()
            try emulation.reply(request, 0x2345_6789)
            #expect(try guest.finish(ticket) == 0x2345_6789)
        }
    }

    @Test("B3: RESUME waits up to the time limit, then the load is all-ones and its request retired")
    func resumeTimesOut() throws {
        try withParking(timeout: .seconds(2)) { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.deviceLoad())
            let request = try emulation.take(exactly: 1)[0]
            _ = try park(guest, hold)
            let start = now()
            hold.release()
            #expect(try guest.finish(ticket) == 0xffff_ffff)
            #expect(now() - start < .seconds(5))
            #expect(throws: Errno.stale) { try emulation.reply(request, 7) }
            #expect(try DebugCounters.ofNewestDevice()["timeouts"] == 1)
            try guest.control.setTimeout(.seconds(60))
            let next = try guest.begin(.deviceLoad())
            try emulation.reply(try emulation.take(exactly: 1)[0], 8)
            #expect(try guest.finish(next) == 8)
        }
    }

    @Test("B3: a parked store that gets no space in RESUME is dropped, and no other")
    func parkedStoreTimesOut() throws {
        try ModuleUnderTest.withQueueDepth(1) {
            try withParking(timeout: .seconds(3)) { guest, hold in
                let emulation = try guest.control.makeEmulationDescriptor()
                try guest.perform(.deviceStore(1))
                let ticket = try guest.begin(.deviceStore(2))
                try #require(try eventually { try DebugCounters.ofNewestDevice()["space_waits"] == 1 })
                #expect(try park(guest, hold) == store(2))
                hold.release()
                try guest.finish(ticket)
                let requests = try emulation.take(exactly: 1)
                #expect(requests.map(\.data) == [1])
                try emulation.acknowledge(requests)
                try guest.perform(.deviceStore(3))
                #expect(try emulation.take(exactly: 1).map(\.data) == [3])
                #expect(try DebugCounters.ofNewestDevice()["dropped"] == 1)
            }
        }
    }

    @Test("B3: a parked load that is resumed after the process has cost its one time limit waits no more")
    func resumeOfStalled() throws {
        try withParking(vcpus: 2) { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            let first = try guest.begin(.deviceLoad())
            _ = try emulation.take(exactly: 1)
            #expect(try park(guest, hold) == load())
            try guest.control.setTimeout(.milliseconds(300))
            #expect(try guest.perform(.deviceLoad(), on: 1) == 0xffff_ffff)
            hold.release()
            #expect(try guest.finish(first) == 0xffff_ffff)
            let counters = try DebugCounters.ofNewestDevice()
            #expect(counters["timeouts"] == 1)
            #expect(counters["all_ones"] == 2)
        }
    }

    @Test("B4, O4: a load that the image would answer after older stores is parked as a request")
    func shadowLoadParked() throws {
        try withParking { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            try emulation.shadowFirstPage()
            try guest.perform(.deviceStore(1))
            let older = try emulation.take(exactly: 1)[0]
            let ticket = try guest.begin(.deviceLoad(4, 8))
            try guest.expectWaiting(ticket)
            #expect(try !emulation.poll(milliseconds: 0).contains(.readable))
            #expect(try park(guest, hold) == load(4, 8))
            let request = try emulation.take(exactly: 1)[0]
            #expect(request.kind == .load)
            try emulation.reply(request, 0x77)
            hold.release()
            try guest.expectWaiting(ticket)
            try emulation.reply(older)
            #expect(try guest.finish(ticket) == 0x77)
            #expect(try DebugCounters.ofNewestDevice()["shadow_hits"] == 0)
        }
    }

    // MARK: A VMM that does not do its part

    /// Parks without the KVM library's knowledge: it gives the exit to its caller.
    private func withUnresumedParking(_ body: (ForwardedGuest) throws -> Void) throws {
        try ForwardedGuest.run { guest in
            #expect(errno(guest.control, CKVMUSER_PARK, kvm_dev_user_park(enable: 1, pad: 0)) == nil)
            try body(guest)
        }
    }

    @Test("B4: a vCPU that is run without RESUME has its load retired at its next access to the device")
    func loadNotResumed() throws {
        try withUnresumedParking { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let first = try guest.begin(.deviceLoad())
            let stale = try emulation.take(exactly: 1)[0]
            guest.interrupt(0)
            #expect(try guest.finish(first) == ForwardedGuest.unforwardedValue & 0xffff_ffff)
            #expect(guest.exits == [load()])
            let second = try guest.begin(.deviceLoad())
            let request = try emulation.take(exactly: 1)[0]
            #expect(throws: Errno.stale) { try emulation.reply(stale, 1) }
            #expect(throws: Errno.invalidArgument) { try emulation.reply(stale, 1) }
            try emulation.reply(request, 2)
            #expect(try guest.finish(second) == 2)
            #expect(try guest.control.resume(vcpu: 0, at: ForwardedGuest.base) == .notParked)
        }
    }

    @Test("B4: and a store that waits for space is dropped, no other")
    func storeNotResumed() throws {
        try ModuleUnderTest.withQueueDepth(1) {
            try withUnresumedParking { guest in
                let emulation = try guest.control.makeEmulationDescriptor()
                try guest.perform(.deviceStore(1))
                let second = try guest.begin(.deviceStore(2))
                try #require(try eventually { try DebugCounters.ofNewestDevice()["space_waits"] == 1 })
                guest.interrupt(0)
                try guest.finish(second)
                #expect(guest.exits == [store(2)])
                let third = try guest.begin(.deviceStore(3))
                try #require(try eventually { try DebugCounters.ofNewestDevice()["space_waits"] == 2 })
                var values: [UInt64] = []
                for _ in 0..<2 {
                    let requests = try emulation.take(exactly: 1)
                    values += requests.map(\.data)
                    try emulation.acknowledge(requests)
                }
                #expect(values == [1, 3])
                try guest.finish(third)
                #expect(try DebugCounters.ofNewestDevice()["dropped"] == 1)
            }
        }
    }

    // MARK: What goes away meanwhile

    /// What a vCPU is in the middle of when it goes.
    enum Wait: CaseIterable {
        case reply
        case space
    }

    /// A vCPU in the middle of an access, closed, and its thread ended.
    private struct Abandoned: ~Copyable {
        let guest: GuestMachine
        let control: ControlDescriptor
        let emulation: EmulationDescriptor

        init(_ wait: Wait) throws {
            let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 1)
            let control = try ControlDescriptor.parking(in: guest.machine, length: 0x1000)
            let emulation = try control.makeEmulationDescriptor()
            let program: GuestProgram = wait == .reply ? .loadLoop(.four) : .storeLoop(.four)
            // unexpectedExit ends the thread at the signal.
            let running = try guest.start(program, .init(target: ForwardedGuest.base, count: 10, seed: 1), on: 0)
            switch wait {
            case .reply: try #require(try emulation.poll(milliseconds: 20_000).contains(.readable))
            case .space: try #require(try eventually { try DebugCounters.ofNewestDevice()["space_waits"] == 1 })
            }
            running.interrupter.interrupt()
            #expect(throws: UnexpectedExit(vcpu: 0, exit: .interrupted)) { try running.join() }
            #expect(try DebugCounters.ofNewestDevice()["parked"] == 1)
            self.guest = guest
            self.control = control
            self.emulation = emulation
        }

        /// Ends the virtual machine.
        consuming func dropMachine() -> EmulationDescriptor {
            emulation
        }
    }

    @Test("B4: the vCPU's descriptor and thread go while its load is parked: it can be replied to, and resumed")
    func virtualCPUGoneInLoad() throws {
        try ModuleUnderTest.load()
        let abandoned = try Abandoned(.reply)
        try abandoned.emulation.reply(try abandoned.emulation.take(exactly: 1)[0], 0x1122)
        #expect(try abandoned.control.resume(vcpu: 0, at: ForwardedGuest.base) == .complete(0x1122))
        #expect(try abandoned.control.resume(vcpu: 0, at: ForwardedGuest.base) == .notParked)
    }

    @Test("B4: and in a store that waits for space: it is queued in its turn")
    func virtualCPUGoneInStore() throws {
        try ModuleUnderTest.withQueueDepth(1) {
            let abandoned = try Abandoned(.space)
            let stores = try abandoned.emulation.take(exactly: 1)
            #expect(stores.map(\.data) == [1])
            try abandoned.emulation.acknowledge(stores)
            #expect(try abandoned.control.resume(vcpu: 0, at: ForwardedGuest.base) == .complete(0))
            #expect(try abandoned.emulation.take(exactly: 1).map(\.data) == [2])
        }
    }

    @Test("B4: the virtual machine goes while an access is parked, and the module can", arguments: Wait.allCases)
    func machineGone(wait: Wait) throws {
        try ModuleUnderTest.withQueueDepth(1) {
            let emulation = try Abandoned(wait).dropMachine()
            #expect(try eventually { try emulation.poll(milliseconds: 0).contains(.machineGone) })
            // A store that was accepted is still there; whatever is left ends.
            let left = try emulation.takeNow()
            if wait == .space { #expect(left.map(\.data).first == 1) }
            for request in left { #expect(throws: Errno.noDevice) { try emulation.reply(request) } }
            #expect(try eventually { try emulation.takeNow().isEmpty })
        }
        #expect(eventually { (try? ModuleUnderTest.unload()) != nil })
    }

    @Test(
        "F1: the emulation descriptor closes while a load is parked: under ABORT and EXIT it reads all-ones",
        arguments: [UInt32(KVM_USER_ON_CLOSE_ABORT), UInt32(KVM_USER_ON_CLOSE_EXIT)])
    func closedWithoutHold(policy: UInt32) throws {
        try withParking { guest, hold in
            let raw = kvm_dev_user_on_close(policy: policy, pad: 0)
            #expect(errno(guest.control, CKVMUSER_ON_CLOSE, raw) == nil)
            let emulation = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.deviceLoad())
            _ = try emulation.take(exactly: 1)
            #expect(try park(guest, hold) == load())
            close(emulation)
            hold.release()
            #expect(try guest.finish(ticket) == 0xffff_ffff)
        }
    }

    @Test("F1: under HOLD a parked load is delivered again, and resumed with the new process's value")
    func closedWithHold() throws {
        try withParking { guest, hold in
            let raw = kvm_dev_user_on_close(policy: UInt32(KVM_USER_ON_CLOSE_HOLD), pad: 0)
            #expect(errno(guest.control, CKVMUSER_ON_CLOSE, raw) == nil)
            let first = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.deviceLoad())
            _ = try first.take(exactly: 1)
            #expect(try park(guest, hold) == load())
            close(first)
            let second = try guest.control.makeEmulationDescriptor()
            let again = try second.take(exactly: 1)[0]
            #expect(again.isRedelivered)
            hold.release()
            try guest.expectWaiting(ticket)
            try second.reply(again, 0x4321)
            #expect(try guest.finish(ticket) == 0x4321)
        }
    }

    @Test("B4: the range moves while an access is parked, which is completed all the same")
    func rangeMoved() throws {
        try withParking { guest, hold in
            let emulation = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.deviceLoad())
            let request = try emulation.take(exactly: 1)[0]
            #expect(try park(guest, hold) == load())
            try guest.control.setRange(0, to: GuestRange(.memory, at: 0xe000_0000, length: 0x1000))
            try emulation.reply(request, 0x31)
            hold.release()
            #expect(try guest.finish(ticket) == 0x31)
        }
    }

    // MARK: Pieces

    @Test("B4: a load whose first piece is the VMM's own: the device's piece waits, the VMM gets its exit")
    func secondPieceOurs() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setParking(true)
            try guest.control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base + 0x1000, length: 0x1000))
            let emulation = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.deviceLoad(8, 0xffd))
            let request = try emulation.take(exactly: 1)[0]
            #expect((request.offset, request.length) == (0, 5))
            guest.interrupt(0)
            try guest.expectWaiting(ticket)
            try emulation.reply(request, 0x99_8877_6655)
            #expect(try guest.finish(ticket) == 0x9988_7766_5556_5656)
            #expect(guest.exits == [load(3, 0xffd)])
        }
    }

    @Test("B4: a load whose second piece is the VMM's own: the device's is parked, then the VMM gets its exit")
    func firstPieceOurs() throws {
        try ForwardedGuest.run { guest in
            try guest.control.setParking(true)
            try guest.control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0x1000))
            let emulation = try guest.control.makeEmulationDescriptor()
            let ticket = try guest.begin(.deviceLoad(8, 0xffd))
            let request = try emulation.take(exactly: 1)[0]
            #expect((request.offset, request.length) == (0xffd, 3))
            guest.interrupt(0)
            try #require(try eventually { try DebugCounters.ofNewestDevice()["parked"] == 1 })
            try guest.expectWaiting(ticket)
            try emulation.reply(request, 0x33_2211)
            #expect(try guest.finish(ticket) == 0x5656_5656_5633_2211)
            #expect(guest.exits == [load(5, 0x1000)])
            #expect(try DebugCounters.ofNewestDevice()["parked"] == 1)
        }
    }

    @Test("B4: 16 bytes at a page's end - 13, only the first 8 ours: KVM has no room to park them, and they wait")
    func noRoomForFragments() throws {
        try ModuleUnderTest.withQueueDepth(1) {
            try ForwardedGuest.run { guest in
                try guest.control.setParking(true)
                try guest.control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0xffb))
                let emulation = try guest.control.makeEmulationDescriptor()
                let ticket = try guest.begin(.deviceLoad(16, 0xff3))
                let request = try emulation.take(exactly: 1)[0]
                #expect((request.offset, request.length) == (0xff3, 8))
                guest.interrupt(0)
                try guest.expectWaiting(ticket)
                #expect(guest.exits.isEmpty)
                try emulation.reply(request, 0x8877_6655_4433_2211)
                #expect(try guest.finish(ticket) == 0x8877_6655_4433_2211)
                let all = try guest.guest.mailbox(of: 0).loadedValue()
                #expect(UInt64(truncatingIfNeeded: all >> 64) == ForwardedGuest.unforwardedValue)
                #expect(guest.exits == [load(5, 0xffb), load(3, 0x1000)])

                try guest.perform(.deviceStore(1))
                let value: UInt128 = 0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110
                let blocked = try guest.begin(.deviceStore(value, 16, 0xff3))
                try #require(try eventually { try DebugCounters.ofNewestDevice()["space_waits"] == 1 })
                guest.interrupt(0)
                try guest.expectWaiting(blocked)
                for data: UInt64 in [1, 0x1716_1514_1312_1110] {
                    let requests = try emulation.take(exactly: 1)
                    #expect(requests.map(\.data) == [data])
                    try emulation.acknowledge(requests)
                }
                try guest.finish(blocked)
                #expect(guest.exits.suffix(2) == [store(0x1c_1b1a_1918, 5, 0xffb), store(0x1f_1e1d, 3, 0x1000)])
                #expect(try DebugCounters.ofNewestDevice()["parked"] == 0)
            }
        }
    }

    // MARK: Many

    @Test("B4: with a device that never answers, four vCPUs in loads and stores on a full queue pause in under 100 ms")
    func pause() throws {
        try ModuleUnderTest.withQueueDepth(1) {
            try withParking(vcpus: 4, timeout: nil) { guest, hold in
                let emulation = try guest.control.makeEmulationDescriptor()
                try guest.perform(.deviceStore(100))
                var tickets: [GuestMailbox.Ticket] = []
                for vcpu: UInt32 in 0..<4 {
                    let access = vcpu < 2 ? GuestAccess.deviceLoad() : .deviceStore(UInt128(vcpu))
                    tickets.append(try guest.begin(access, on: vcpu))
                }
                try #require(
                    try eventually {
                        let counters = try DebugCounters.ofNewestDevice()
                        return counters["space_waits"] == 2 && counters["requests"] == 3
                    })
                var pauses: [Duration] = []
                for _ in 0..<11 {
                    let start = now()
                    for vcpu in 0..<4 { guest.interrupt(vcpu) }
                    while hold.held.count < 4, now() - start < .seconds(5) { usleep(100) }
                    pauses.append(now() - start)
                    let accesses: [UInt32: VirtualCPU.Exit] = [0: load(), 1: load(), 2: store(2), 3: store(3)]
                    #expect(hold.held == accesses.mapValues { .init(parked: $0) })
                    hold.release()
                }
                // The middle one: the lab's machine may be busy with something else for as long.
                #expect(pauses.sorted()[5] < Effort.patience(.milliseconds(100)), "took \(pauses)")
                for _ in 0..<5 {
                    let request = try emulation.take(exactly: 1)[0]
                    try emulation.reply(request, UInt64(request.vcpu) + 50)
                }
                for vcpu: UInt32 in 0..<4 {
                    let value = try guest.finish(tickets[Int(vcpu)], on: vcpu)
                    if vcpu < 2 { #expect(value == UInt64(vcpu) + 50) }
                }
                #expect(try !emulation.poll(milliseconds: 0).contains(.readable))
            }
        }
    }

    @Test(
        "B4: 10,000 signals at random moments, 4 vCPUs, a full queue: every access exactly once, every value right",
        arguments: [
            (GuestProgram.loadLoop(.eight), 3000), (.storeLoop(.eight), 3000), (.mixedAligned, 4000),
        ] as [(GuestProgram, Int)])
    func signals(program: GuestProgram, signals: Int) throws {
        try ModuleUnderTest.withQueueDepth(3) {
            let signals = Effort.scaled(signals)
            let traffic = SignalledTraffic(program: program, count: 200, vcpus: 4, signals: signals, seed: 20)
            let report = try traffic.run()
            #expect(report.mismatch == nil)
            // Of both kinds, not a few: the others hit a vCPU that did not wait. Under checkers the vCPU is the slow one.
            let few = signals / 100
            if program != .storeLoop(.eight) { #expect(report.parkedLoads > few, "\(report)") }
            if program != .loadLoop(.eight) { #expect(report.parkedStores > few, "\(report)") }
        }
    }

    @Test(
        "B4: page-crossing, 16-byte and string accesses under signals: every piece exactly once, every value right",
        arguments: [
            GuestProgram.straddling, .sixteenBytes, .mixed, .stringCopyIn(.eight), .stringCopyOut(.four),
        ])
    func pieces(program: GuestProgram) throws {
        try ModuleUnderTest.withQueueDepth(3) {
            let traffic = SignalledTraffic(program: program, count: 20, vcpus: 2, signals: 200, seed: 21)
            let report = try traffic.run()
            #expect(report.mismatch == nil)
            #expect(report.parkedLoads + report.parkedStores > 20, "\(report)")
        }
    }

    @Test(
        "B4: REP INS to the device, which KVM reads ahead and stores at once, over a page's end and under signals",
        arguments: [(.one, 1501), (.two, 1502), (.four, 1503), (.four, 1001)] as [(GuestProgram.Width, UInt64)])
    func readAhead(width: GuestProgram.Width, before: UInt64) throws {
        try ModuleUnderTest.withQueueDepth(3) {
            let (bytes, signals) = (2100, 80)
            let traffic = InputTraffic(
                width: width, count: bytes / width.rawValue, before: before, vcpus: 2, signals: signals)
            let report = try traffic.run()
            #expect(report.mismatch == nil)
            // Whole pieces of what was read ahead, and signals in their midst.
            #expect(report.lengths[8, default: 0] > 2 * bytes / 8 - 20, "\(report)")
            #expect(report.parked >= 10, "\(report)")
        }
    }

    @Test("B4: a signal that came before KVM_RUN goes on with an instruction parks what that then waits for")
    func signalBeforeCompletion() throws {
        try ModuleUnderTest.withQueueDepth(1) {
            try ModuleUnderTest.load()
            let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 1)
            let control = try ControlDescriptor.parking(in: guest.machine, length: 0x1000)
            let emulation = try control.makeEmulationDescriptor()
            let parked = Mutex<[VirtualCPU.Exit?]>([])
            let running = try guest.start(
                .stringInputOut(.four), .init(target: ForwardedGuest.base, count: 4), on: 0
            ) { exit, vcpu in
                if case .portLoad(let access) = exit {
                    for position in 0..<access.count { vcpu.setPortValue(UInt32(position), at: position) }
                    // Its handler has run by the time that KVM stores what it has read.
                    vcpu.interrupter.interrupt()
                } else {
                    guard exit == .interrupted else { return try unexpectedExit(exit, &vcpu) }
                    parked.withLock { $0.append(vcpu.parkedAccess) }
                }
            }
            // The first of two pieces has space, the second has none.
            try #require(eventually { parked.withLock { !$0.isEmpty } }, "the vCPU did not come out")
            let second = VirtualCPU.MemoryAccess(address: ForwardedGuest.base + 8, length: 8)
            #expect(parked.withLock { $0.first } == .mmioStore(second, 3 << 32 | 2))
            for value: UInt64 in [1 << 32, 3 << 32 | 2] {
                let requests = try emulation.take(exactly: 1)
                #expect(requests.map(\.data) == [value])
                try emulation.acknowledge(requests)
            }
            _ = try running.join()
            #expect(try !emulation.poll(milliseconds: 0).contains(.readable))
        }
    }
}

/// A page of zeroes that cannot be written to.
@safe private final class ReadOnlyPage {
    private let start: UnsafeMutableRawPointer

    init() throws {
        let start = unsafe mmap(nil, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let start = unsafe start, unsafe start != MAP_FAILED else { throw Errno.noMemory }
        unsafe self.start = unsafe start
    }

    deinit {
        _ = unsafe munmap(start, 4096)
    }

    var address: UInt { UInt(bitPattern: unsafe start) }
}
