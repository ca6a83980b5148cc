// SPDX-License-Identifier: Apache-2.0
//
// Every allocation and every user copy of each call fails once: a clean errno, nothing changed, nothing lost. Runs on
// the kernel with CONFIG_FAULT_INJECTION alone, from scripts/sanitize.

import CKVMUser
import Glibc
import GuestPrograms
import KVM
import KernelModule
import LinuxSystem
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("Fault injection")
struct FaultInjectionTests {
    private let machineLimit = Duration.seconds(60)

    init() throws {
        try ModuleUnderTest.load()
    }

    /// Unloads the module, which it refuses while anything of it is left.
    private func expectNothingLeft(sourceLocation: SourceLocation = #_sourceLocation) {
        let unloaded = eventually(within: machineLimit) { (try? ModuleUnderTest.unload()) != nil }
        #expect(unloaded, "something keeps the module", sourceLocation: sourceLocation)
    }

    /// Runs `body` with a guest, its device's emulation descriptor, and the faults of this thread.
    private func withGuest(
        _ body: (ForwardedGuest, borrowing EmulationDescriptor, FaultInjection) throws -> Void
    ) throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            try body(guest, emulation, try FaultInjection())
            try expectWorking(guest, emulation)
        }
        expectNothingLeft()
    }

    /// Expects that a store and a load get to the device.
    private func expectWorking(_ guest: ForwardedGuest, _ emulation: borrowing EmulationDescriptor) throws {
        try guest.perform(.deviceStore(0x1234))
        let load = try guest.begin(.deviceLoad())
        let requests = try emulation.take(exactly: 2)
        try emulation.reply(requests[0])
        try emulation.reply(requests[1], 0x5678)
        #expect(try guest.finish(load) == 0x5678)
    }

    // MARK: Making things

    @Test("KVM_CREATE_DEVICE: fails with no device made, or makes one that works")
    func create() throws {
        var machine: VirtualMachine? = try KVMSystem().makeVirtualMachine()
        let type = try DeviceType.current().rawValue
        let faults = try FaultInjection()
        let before = openDescriptors()
        let failures = try faults.eachFault { nth in
            let devices = DebugCounters.deviceCount()
            let attempt = try faults.failing(nth) { () throws(Errno) in try Self.makeDevice(in: machine, type) }
            // KVM has made the device when it tells its number, and where it cannot, it says EFAULT and leaves both.
            let leftovers = openDescriptors().subtracting(before)
            #expect(leftovers.isEmpty || attempt.error == .badAddress)
            for number in leftovers { _ = Glibc.close(number) }
            if attempt.error != nil && attempt.error != .badAddress {
                #expect(DebugCounters.deviceCount() == devices)
            }
            return attempt
        }
        #expect(failures >= 5)
        machine = nil
        #expect(eventually { DebugCounters.deviceCount() == 0 })
        expectNothingLeft()
    }

    private static func makeDevice(in machine: VirtualMachine?, _ type: UInt32) throws(Errno) {
        do throws(KVMError) {
            _ = try machine?.makeDevice(type: type)
        } catch {
            throw error.errno
        }
    }

    @Test("EMULATION_FD: fails with none made, and the next call makes one")
    func emulationDescriptor() throws {
        try ForwardedGuest.run { guest in
            let faults = try FaultInjection()
            let before = openDescriptors()
            let failures = try faults.eachFault { nth in
                // A descriptor that was made closes at the end of the call.
                let attempt = try faults.failing(nth) { () throws(Errno) in
                    try Self.call(guest.control.descriptor, CKVMUSER_EMULATION_FD, kvm_dev_user_emulation_fd())
                }
                let made = openDescriptors().subtracting(before)
                #expect(made.count == (attempt.error == nil ? 1 : 0))
                for number in made { _ = Glibc.close(number) }
                try expectWorking(guest, try guest.control.makeEmulationDescriptor(nonBlocking: true))
                return attempt
            }
            #expect(failures >= 3)
        }
        expectNothingLeft()
    }

    @Test("RING: fails with none made, and the next call makes one")
    func ring() throws {
        try ForwardedGuest.run { guest in
            let faults = try FaultInjection()
            let failures = try faults.eachFault { nth in
                let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
                let attempt = try faults.failing(nth) { () throws(Errno) in
                    try Self.call(emulation.descriptor, CKVMUSER_RING, kvm_dev_user_ring())
                }
                if attempt.error == nil {
                    #expect(throws: Errno.resourceBusy) {
                        try Self.call(emulation.descriptor, CKVMUSER_RING, kvm_dev_user_ring())
                    }
                    _ = try Self.call(emulation.descriptor, CKVMUSER_RING_ENTER, kvm_dev_user_ring_enter())
                } else {
                    try expectWorking(guest, emulation)
                    _ = try Self.call(emulation.descriptor, CKVMUSER_RING, kvm_dev_user_ring())
                }
                return attempt
            }
            #expect(failures >= 3)
        }
        expectNothingLeft()
    }

    @Test("COALESCE, RING_ENTER: an argument that cannot be read is EFAULT, and changes nothing")
    func arguments() throws {
        try withGuest { _, emulation, faults in
            let failures = try faults.eachFault { nth in
                try faults.failing(nth) { () throws(Errno) in
                    try Self.call(
                        emulation.descriptor, CKVMUSER_COALESCE, kvm_dev_user_coalesce(ns: 1000, stores: 1, pad: 0))
                }
            }
            #expect(failures >= 1)
            let entering = try faults.failing(1) { () throws(Errno) in
                try Self.call(emulation.descriptor, CKVMUSER_RING_ENTER, kvm_dev_user_ring_enter())
            }
            #expect(entering.error == .badAddress)
        }
    }

    // MARK: Ranges

    /// Where the range answers that the tests place and move.
    private static let otherBase: UInt64 = 0xe000_0000

    private static func place(_ length: UInt64) -> kvm_dev_user_pa_range {
        kvm_dev_user_pa_range(addr: otherBase, len: length, bus: UInt32(KVM_USER_BUS_MMIO), id: 0, flags: 0, pad: 0)
    }

    /// Which of a device's ranges answer, by stores to each.
    private func answering(_ guest: ForwardedGuest, _ emulation: borrowing EmulationDescriptor) throws -> [UInt64] {
        var answering: [UInt64] = []
        for address in [ForwardedGuest.base, Self.otherBase] {
            let exits = guest.exits.count
            try guest.perform(.store(1, 4, at: address))
            if guest.exits.count == exits {
                answering.append(address)
                try emulation.acknowledge(try emulation.take(exactly: 1))
            }
        }
        return answering
    }

    @Test("PA_RANGE: a range that cannot be placed is not there, and the others are")
    func place() throws {
        try withGuest { guest, emulation, faults in
            var range = Self.place(0x1000)
            range.id = 5
            let failures = try faults.eachFault { nth in
                let attempt = try faults.failing(nth) { () throws(Errno) in
                    try Self.call(guest.control.descriptor, CKVMUSER_PA_RANGE, range)
                }
                let places = attempt.error == nil ? [ForwardedGuest.base, Self.otherBase] : [ForwardedGuest.base]
                #expect(try answering(guest, emulation) == places)
                if attempt.error == nil { try guest.control.removeRange(5) }
                return attempt
            }
            #expect(failures >= 3)
        }
    }

    @Test(
        "PA_RANGE: a move or removal that fails changes nothing, unless KVM lost its whole bus",
        arguments: [UInt64(0x1000), 0])
    func moveOrRemove(length: UInt64) throws {
        let faults = try FaultInjection()
        let failures = try faults.eachFault { nth in
            try ForwardedGuest.run { guest in
                let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
                let attempt = try faults.failing(nth) { () throws(Errno) in
                    try Self.call(guest.control.descriptor, CKVMUSER_PA_RANGE, Self.place(length))
                }
                let places = try answering(guest, emulation)
                switch attempt.error {
                case nil: #expect(places == (length == 0 ? [] : [Self.otherBase]))
                case Errno.noMemory: #expect(places == [ForwardedGuest.base] || places.isEmpty)
                default: #expect(places == [ForwardedGuest.base])
                }
                return attempt
            }
        }
        #expect(failures >= 2)
        expectNothingLeft()
    }

    // MARK: Simple calls

    /// An ioctl whose argument the kernel copies, and that may be repeated.
    struct SimpleCall: Sendable, CustomTestStringConvertible {
        let name: String
        let command: UInt
        let argument: UInt64
        let onControl: Bool

        var testDescription: String { name }
    }

    static let simpleCalls = [
        SimpleCall(name: "INFO", command: CKVMUSER_INFO, argument: 0, onControl: true),
        SimpleCall(name: "TIMEOUT", command: CKVMUSER_TIMEOUT, argument: 60_000_000_000, onControl: true),
        SimpleCall(name: "ON_CLOSE", command: CKVMUSER_ON_CLOSE, argument: 0, onControl: true),
        SimpleCall(name: "PARK", command: CKVMUSER_PARK, argument: 0, onControl: true),
        SimpleCall(
            name: "INFO on the emulation descriptor", command: CKVMUSER_INFO, argument: 0, onControl: false),
    ]

    @Test("an ioctl that cannot copy its argument is EFAULT, and works the next time", arguments: simpleCalls)
    func simple(call: SimpleCall) throws {
        try withGuest { guest, emulation, faults in
            let failures = try faults.eachFault { nth in
                try faults.failing(nth) { () throws(Errno) in
                    // Room for the largest of them.
                    let argument = (call.argument, UInt64(0), UInt64(0), UInt64(0), UInt64(0))
                    if call.onControl {
                        try Self.call(guest.control.descriptor, call.command, argument)
                    } else {
                        try Self.call(emulation.descriptor, call.command, argument)
                    }
                }
            }
            #expect(failures >= 1)
        }
    }

    private static func call<Argument: BitwiseCopyable>(
        _ descriptor: borrowing OwnedDescriptor, _ command: UInt, _ argument: Argument
    ) throws(Errno) {
        var argument = argument
        try descriptor.ioctl(command, &argument)
    }

    // MARK: Requests and replies

    /// More than the module copies at a time.
    private static let batch = 40

    /// Has the guest make stores, each with its own value.
    private func store(_ guest: ForwardedGuest) throws {
        for value in 0..<Self.batch { try guest.perform(.deviceStore(UInt128(value))) }
    }

    @Test("read: no request is lost or reordered")
    func read() throws {
        try withGuest { guest, emulation, faults in
            let failures = try faults.eachFault { nth in
                try store(guest)
                var requests: [ForwardedRequest] = []
                let attempt = try faults.failing(nth) { () throws(Errno) in
                    requests = try emulation.takeNow(Self.batch)
                }
                if requests.count < Self.batch { requests += try emulation.takeNow(Self.batch) }
                #expect(requests.map(\.data) == Array(0..<UInt64(Self.batch)))
                try emulation.acknowledge(requests)
                return attempt
            }
            #expect(failures >= 1)
        }
    }

    @Test("write: the replies that were taken are those it says, and the rest is taken the next time")
    func write() throws {
        try withGuest { guest, emulation, faults in
            let failures = try faults.eachFault { nth in
                try store(guest)
                let replies = try emulation.takeNow(Self.batch).map { $0.reply(0) }
                var taken = 0
                let attempt = try faults.failing(nth) { () throws(Errno) in taken = try emulation.send(replies) }
                if taken < replies.count {
                    #expect(try emulation.send(Array(replies[taken...])) == replies.count - taken)
                }
                return attempt
            }
            #expect(failures >= 1)
        }
    }

    @Test("EXCHANGE: no reply is taken twice, no request is lost or reordered")
    func exchange() throws {
        try withGuest { guest, emulation, faults in
            let failures = try faults.eachFault { nth in
                try store(guest)
                var replies = try emulation.takeNow(Self.batch).map { $0.reply(0) }
                try store(guest)
                var requests: [ForwardedRequest] = []
                let attempt = try faults.failing(nth) { () throws(Errno) in
                    try Self.exchange(emulation, &replies, &requests)
                }
                // What it left is for the next call.
                try Self.exchange(emulation, &replies, &requests)
                #expect(replies.isEmpty)
                #expect(requests.map(\.data) == Array(0..<UInt64(Self.batch)))
                try emulation.acknowledge(requests)
                return attempt
            }
            #expect(failures >= 2)
        }
    }

    /// Gives `replies` and takes a batch of requests in one call; takes away those that were accepted, and adds those
    /// that came.
    private static func exchange(
        _ emulation: borrowing EmulationDescriptor, _ replies: inout [ForwardedReply],
        _ requests: inout [ForwardedRequest]
    ) throws(Errno) {
        var room = [ForwardedRequest](
            repeating: ForwardedRequest(sequence: 0, .load, offset: 0, length: 0), count: batch - requests.count)
        var raw = kvm_dev_user_exchange()
        raw.nr_replies = UInt32(replies.count)
        raw.nr_requests = UInt32(room.count)
        var space = room.mutableSpan
        try unsafe replies.span.withUnsafeBytes { given throws(Errno) in
            try unsafe space.withUnsafeMutableBytes { taken throws(Errno) in
                raw.replies = UInt64(UInt(bitPattern: given.baseAddress))
                raw.requests = UInt64(UInt(bitPattern: taken.baseAddress))
                try emulation.descriptor.ioctl(CKVMUSER_EXCHANGE, &raw)
            }
        }
        replies.removeFirst(Int(raw.nr_replies))
        requests += room.prefix(Int(raw.nr_requests))
    }

    @Test("RESUME: what a parked load gave is given once, however often the call fails before")
    func resume() throws {
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 1)
        let control = Box(try ControlDescriptor(in: guest.machine))
        try control.value.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0x1000))
        try Self.call(control.value.descriptor, CKVMUSER_PARK, kvm_dev_user_park(enable: 1, pad: 0))
        let emulation = try control.value.makeEmulationDescriptor()
        let arguments = GuestProgram.Arguments(target: ForwardedGuest.base, count: 1)
        let program = try guest.start(.loadLoop(.four), arguments, on: 0) { exit, vcpu in
            guard exit != .interrupted else { return }
            let faults = try FaultInjection()
            var resume = kvm_dev_user_resume(addr: ForwardedGuest.base, data: 0, vcpu: 0, pad: 0)
            let failures = try faults.eachFault(repeatable: false) { nth in
                try faults.failing(nth) { () throws(Errno) in
                    try control.value.descriptor.ioctl(CKVMUSER_RESUME, &resume)
                }
            }
            #expect(failures >= 1)
            vcpu.setLoadedValue(resume.data)
        }
        let request = try emulation.take(exactly: 1)[0]
        #expect(
            try eventually {
                program.interrupter.interrupt()
                return try DebugCounters.ofNewestDevice()["parked"] == 1
            })
        try emulation.reply(request, 0x2718)
        #expect(try program.join().values == [0x2718])
    }

    // MARK: Shadow memory

    private static func shadowSize(_ emulation: borrowing EmulationDescriptor) throws -> UInt64 {
        var information = kvm_dev_user_info()
        try emulation.descriptor.ioctl(CKVMUSER_INFO, &information)
        return information.shadow_size
    }

    @Test("SHADOW_SIZE: a call that fails leaves the image that there was")
    func shadowSize() throws {
        try withGuest { _, emulation, faults in
            let failures = try faults.eachFault { nth in
                let before = try Self.shadowSize(emulation)
                let size: UInt64 = before == 0x3000 ? 0x2000 : 0x3000
                let attempt = try faults.failing(nth) { () throws(Errno) in
                    try Self.call(emulation.descriptor, CKVMUSER_SHADOW_SIZE, size)
                }
                #expect(try Self.shadowSize(emulation) == (attempt.error == nil ? size : before))
                return attempt
            }
            #expect(failures >= 4)
        }
    }

    /// Has the image answer 4-byte loads at `offset` of the range, and nowhere else.
    private static func map(_ emulation: borrowing EmulationDescriptor, at offset: UInt64) throws(Errno) {
        let entry = kvm_user_shadow_entry(offset: offset, len: 4, image_offset: 0, range_id: 0, sizes: 4)
        try unsafe withUnsafePointer(to: entry) { entry throws(Errno) in
            let address = UInt64(UInt(bitPattern: entry))
            try call(
                emulation.descriptor, CKVMUSER_SHADOW_CTRL,
                kvm_dev_user_shadow_ctrl(entries: address, nr_entries: 1, pad: 0))
        }
    }

    /// Whether a load comes back without a request.
    private func isShadowed(
        _ guest: ForwardedGuest, _ emulation: borrowing EmulationDescriptor, at offset: UInt64
    ) throws -> Bool {
        let load = try guest.begin(.deviceLoad(4, offset))
        var requests: [ForwardedRequest] = []
        let limit = now() + .seconds(20)
        while try requests.isEmpty && !guest.isDone(load) && now() < limit {
            if try emulation.poll(milliseconds: 1).contains(.readable) { requests = try emulation.takeNow(1) }
        }
        try emulation.acknowledge(requests)
        try guest.finish(load)
        return requests.isEmpty
    }

    @Test("SHADOW_CTRL: a call that fails leaves the map that there was")
    func shadowMap() throws {
        try withGuest { guest, emulation, faults in
            try Self.call(emulation.descriptor, CKVMUSER_SHADOW_SIZE, UInt64(0x1000))
            let failures = try faults.eachFault { nth in
                try Self.map(emulation, at: 0x20)
                let attempt = try faults.failing(nth) { () throws(Errno) in try Self.map(emulation, at: 0x40) }
                #expect(try isShadowed(guest, emulation, at: 0x20) == (attempt.error != nil))
                #expect(try isShadowed(guest, emulation, at: 0x40) == (attempt.error == nil))
                return attempt
            }
            #expect(failures >= 3)
        }
    }

    @Test("mmap: one that fails keeps nothing of the image")
    func mapping() throws {
        try withGuest { _, emulation, faults in
            let failures = try faults.eachFault { nth in
                try Self.call(emulation.descriptor, CKVMUSER_SHADOW_SIZE, UInt64(0x2000))
                // It goes after the call, for munmap may fail as well; EBUSY would say that one is left.
                var mapping: MemoryMapping?
                let attempt = try faults.failing(nth) { () throws(Errno) in
                    mapping = try MemoryMapping(mapping: emulation.descriptor, count: 0x2000)
                }
                close(mapping.take())
                return attempt
            }
            #expect(failures >= 1)
            try Self.call(emulation.descriptor, CKVMUSER_SHADOW_SIZE, UInt64(0x1000))
        }
    }

    // MARK: The counters

    @Test("debugfs: the counters' file fails cleanly, or says what it always does")
    func counters() throws {
        try withGuest { _, _, faults in
            let path = try #require(DebugCounters.pathOfNewestDevice())
            let usual = try textOfFile(path)
            let failures = try faults.eachFault { nth in
                var text = usual
                let attempt = try faults.failing(nth) { () throws(Errno) in
                    do {
                        text = try textOfFile(path)
                    } catch {
                        throw error as? Errno ?? .ioError
                    }
                }
                #expect(text == usual)
                return attempt
            }
            #expect(failures >= 3)
        }
    }
}
