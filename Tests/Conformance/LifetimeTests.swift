// SPDX-License-Identifier: Apache-2.0
//
// Objects and lifetimes: every order of closing, what is left of a device without its VM, and the module's own.

import CKVMUser
import Glibc
import GuestPrograms
import KVM
import KernelModule
import LinuxSystem
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("Lifetime")
struct LifetimeTests {
    /// Everything that a device consists of in user space.
    private final class Objects {
        var machine: VirtualMachine?
        var vcpu: VirtualCPU?
        var control: ControlDescriptor?
        var emulation: EmulationDescriptor?

        init() throws {
            let machine = try KVMSystem().makeVirtualMachine()
            let control = try ControlDescriptor(in: machine)
            try control.setRange(0, to: GuestRange(.memory, at: 0xd000_0000, length: 0x1000))
            emulation = try control.makeEmulationDescriptor()
            vcpu = try machine.makeVirtualCPU(id: 0)
            self.control = consume control
            self.machine = machine
        }

        func drop(_ which: Int) {
            switch which {
            case 0: machine = nil
            case 1: vcpu = nil
            case 2: control = nil
            default: emulation = nil
            }
        }
    }

    private static let orders: [[Int]] = (0..<24).map { number in
        var (rest, order, number) = ([0, 1, 2, 3], [Int](), number)
        for radix in [4, 3, 2, 1] {
            order.append(rest.remove(at: number % radix))
            number /= radix
        }
        return order
    }

    @Test("every order of closing is legal, rmmod is busy until the last, and then not", arguments: orders)
    func closingOrders(order: [Int]) throws {
        try ModuleUnderTest.load()
        let objects = try Objects()
        for which in order {
            let error = #expect(throws: ModuleError.self) { try ModuleUnderTest.unload() }
            #expect(error?.errno == .resourceBusy)
            objects.drop(which)
        }
        #expect(eventually { (try? ModuleUnderTest.unload()) != nil })
    }

    @Test("closing the control descriptor does not stop the device")
    func controlClosed() throws {
        try ModuleUnderTest.load()
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 1)
        let emulation = try Self.makeDevice(in: guest.machine)
        let program = try guest.start(.loadLoop(.four), .init(target: ForwardedGuest.base, count: 10), on: 0)
        for value in 0..<UInt64(10) { try emulation.reply(try emulation.take(exactly: 1)[0], value) }
        #expect(try program.join().values == Array(0..<10))
    }

    /// Makes a device, and keeps nothing of it but the emulation descriptor.
    private static func makeDevice(in machine: VirtualMachine) throws -> EmulationDescriptor {
        let control = try ControlDescriptor(in: machine)
        try control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0x1000))
        return try control.makeEmulationDescriptor()
    }

    @Test("after the VM: what was stored is read, then end of file; EPOLLHUP; write and ioctl ENODEV")
    func machineGone() throws {
        try ModuleUnderTest.load()
        let emulation = try Self.runAndDrop(stores: 5)
        #expect(try eventually { try emulation.poll(milliseconds: 0).contains(.machineGone) })
        #expect(try emulation.poll(milliseconds: 0) == [.readable, .writable, .machineGone])
        let requests = try emulation.takeNow(3)
        #expect(requests.map(\.data) == [0, 1, 2])
        #expect(throws: Errno.noDevice) { try emulation.reply(requests[0]) }
        #expect(try emulation.takeNow().map(\.data) == [3, 4])
        #expect(try emulation.takeNow().isEmpty)
        #expect(try emulation.takeNow().isEmpty)
        #expect(try emulation.poll(milliseconds: 0) == [.writable, .machineGone])
        for command: UInt in [0, 0xae00, 0x5401] {
            #expect(throws: Errno.noDevice) { try emulation.descriptor.ioctl(command) }
        }
    }

    /// Runs a guest that stores a few values, ends it, and keeps the emulation descriptor.
    private static func runAndDrop(stores: Int) throws -> EmulationDescriptor {
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 1)
        let emulation = try makeDevice(in: guest.machine)
        let program = try guest.start(.storeLoop(.four), .init(target: ForwardedGuest.base, count: stores), on: 0)
        _ = try program.join()
        return emulation
    }

    @Test("a process that owes as many replies as it may still reads what was stored when the VM goes")
    func owingAtTheEnd() throws {
        let emulation = try ModuleUnderTest.withQueueDepth(2) { () throws -> Box<EmulationDescriptor> in
            let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 1)
            let emulation = try Self.makeDevice(in: guest.machine)
            let program = try guest.start(.storeLoop(.four), .init(target: ForwardedGuest.base, count: 4), on: 0)
            _ = try emulation.take(exactly: 2)
            _ = try program.join()
            return Box(emulation)
        }
        #expect(try eventually { try emulation.value.poll(milliseconds: 0).contains(.machineGone) })
        #expect(try emulation.value.takeNow().map(\.data) == [2, 3])
        #expect(try emulation.value.takeNow().isEmpty)
    }

    @Test("threads that wait in read and in poll see the VM go")
    func waitersSeeTheEnd() throws {
        try ModuleUnderTest.load()
        var machine: VirtualMachine? = try KVMSystem().makeVirtualMachine()
        let emulation = Box(try Self.makeDevice(in: try #require(machine)))
        let readers = try (0..<3).map { _ in try BackgroundTask { try emulation.value.takeNow().count } }
        let poller = try BackgroundTask { try emulation.value.poll(milliseconds: 60_000) }
        usleep(100_000)
        machine = nil
        for reader in readers { #expect(try reader.join() == 0) }
        #expect(try poller.join().contains(.machineGone))
    }

    @Test("a forgotten emulation descriptor keeps no VM: its memory goes with the VMM's own descriptors")
    func descriptorKeepsNoMachine() throws {
        try ModuleUnderTest.load()
        let before = Self.liveMachines()
        let emulation = try Self.runAndDrop(stores: 1)
        #expect(eventually { Self.liveMachines() == before })
        close(emulation)
    }

    /// Virtual machines that exist, as KVM shows them in debugfs.
    private static func liveMachines() -> Int {
        guard let directory = unsafe opendir("/sys/kernel/debug/kvm") else { return -1 }
        defer { _ = unsafe closedir(directory) }
        var count = 0
        while let entry = unsafe readdir(directory) {
            if unsafe entry.pointee.d_type == DT_DIR { count += 1 }
        }
        return count
    }

    @Test("the descriptor works after a trip over a UNIX socket, and one that is never received is closed with it")
    func overASocket() throws {
        try ForwardedGuest.run { guest in
            let sockets = try UnixSocket.pair()
            try Handover.send(try guest.control.makeEmulationDescriptor(), over: sockets.first)
            let handover = try Handover(receivingFrom: sockets.second)
            let load = try guest.begin(.deviceLoad())
            try handover.emulation.reply(try handover.emulation.take(exactly: 1)[0], 12)
            #expect(try guest.finish(load) == 12)
            try Handover.send(handover.emulation, over: sockets.first)
            close(handover)
            // In the socket's queue it is open: the guest waits.
            let waiting = try guest.begin(.deviceLoad())
            try guest.expectWaiting(waiting)
            close(sockets)
            #expect(try guest.finish(waiting) == 0xffff_ffff)
        }
    }

    @Test("only the process that made the VM configures it: EIO for any other")
    func otherProcess() throws {
        try ModuleUnderTest.load()
        let control = try ControlDescriptor(in: try KVMSystem().makeVirtualMachine())
        let flags = fcntl(control.descriptor.rawValue, F_GETFD)
        _ = fcntl(control.descriptor.rawValue, F_SETFD, flags & ~FD_CLOEXEC)
        // KVM_DEV_USER_INFO from a child that inherited the descriptor.
        let script = """
            import fcntl, sys
            try: fcntl.ioctl(int(sys.argv[1]), \(CKVMUSER_INFO), bytearray(32))
            except OSError as error: sys.exit(error.errno)
            """
        let child = try RunningCommand(
            "/usr/bin/python3", arguments: ["-c", script, "\(control.descriptor.rawValue)"])
        #expect(try child.end() == Errno.ioError.rawValue)
    }

    @Test("load, use and unload, again and again, leaves nothing behind")
    func noLeak() throws {
        try ModuleUnderTest.unloadIfLoaded()
        for _ in 0..<10 { try Self.loadUseUnload() }
        let before = try SlabCounts()
        // Not too few to be told from what else goes on.
        let times = max(Effort.scaled(100), 30)
        for _ in 0..<times { try Self.loadUseUnload() }
        let grown = try SlabCounts().grown(since: before, by: times)
        #expect(grown.isEmpty, "\(grown)")
    }

    private static func loadUseUnload() throws {
        try ModuleUnderTest.load(.release)
        let emulation = try runAndDrop(stores: 3)
        _ = try emulation.takeNow(2)
        close(emulation)
        try #require(eventually { (try? ModuleUnderTest.unload()) != nil })
    }
}

/// Objects in use of each slab cache that the module allocates from.
private struct SlabCounts {
    private var objects: [String: Int] = [:]

    init() throws {
        for name in Self.caches { objects[name] = try Self.objectsInUse(name) }
    }

    private static let caches = ["8", "16", "32", "64", "96", "128", "192", "256", "512", "1k", "2k", "4k", "8k"]
        .map { "kmalloc-cg-" + $0 }

    /// The fewest of several looks: a slab that a CPU keeps for itself counts as used to its last object, from any
    /// process's next allocation on, and of the smallest objects one slab holds more than the test allows.
    private static func objectsInUse(_ name: String) throws -> Int {
        var fewest = Int.max
        for _ in 0..<20 {
            try shrink(name)
            let text = try textOfFile("/sys/kernel/slab/\(name)/objects")
            fewest = min(fewest, try #require(text.split(whereSeparator: \.isWhitespace).first.flatMap { Int($0) }))
            usleep(5000)
        }
        return fewest
    }

    /// Takes the slabs back that CPUs keep.
    private static func shrink(_ name: String) throws {
        let file = try FileDescriptor.open(FilePath("/sys/kernel/slab/\(name)/shrink"), .writeOnly)
        defer { try? file.close() }
        _ = try file.writeAll("1".utf8)
    }

    /// The caches that hold at least as many objects more.
    func grown(since before: SlabCounts, by count: Int) -> [String: Int] {
        objects.filter { $0.value - before.objects[$0.key, default: 0] >= count }
    }
}
