// SPDX-License-Identifier: Apache-2.0
//
// The control descriptor's ioctls: what they do, and every argument that they must refuse.

import CKVMUser
import KVM
import LinuxSystem
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("Control descriptor")
struct ControlDescriptorTests {
    let machine: VirtualMachine

    init() throws {
        try ModuleUnderTest.load()
        machine = try KVMSystem().makeVirtualMachine()
    }

    private func makeDevice() throws -> ControlDescriptor {
        try ControlDescriptor(in: machine)
    }

    /// The errno of an ioctl with any argument, nil if it succeeds.
    private func errno<Argument: BitwiseCopyable>(
        _ device: borrowing ControlDescriptor, _ command: UInt, _ argument: Argument
    ) -> Errno? {
        var argument = argument
        do throws(Errno) {
            try device.descriptor.ioctl(command, &argument)
            return nil
        } catch {
            return error
        }
    }

    @Test("KVM_CREATE_DEVICE_TEST knows the type, and makes nothing")
    func createTest() throws {
        try machine.testDevice(type: try DeviceType.current().rawValue)
        #expect(DebugCounters.deviceCount() == 0)
    }

    @Test("INFO tells the ABI version, the queue depth and the bounds")
    func information() throws {
        let information = try makeDevice().information()
        #expect(information.abiVersion == UInt32(KVM_USER_ABI_VERSION))
        #expect("\(information.queueDepth)" == ModuleUnderTest.parameter("queue_depth"))
        #expect(information.maximumRanges == 64)
        #expect(information.maximumVirtualCPUs >= 255)
        #expect(
            information.features == [
                .onClose, .park, .exchange, .shadow, .cumulativeReplies, .coalescing, .ring,
            ])
        #expect(information.maximumShadowSize == 1 << 20)
    }

    @Test(
        "an unknown command is ENOTTY",
        arguments: [UInt(0xaeff), 0x4004_aef4, 0, 0xc008_5401, CKVMUSER_INFO &+ 1 << 16])
    func unknownCommand(command: UInt) throws {
        #expect(errno(try makeDevice(), command, UInt64(0)) == .inappropriateIOCTLForDevice)
    }

    @Test(
        "a bad pointer is EFAULT",
        arguments: [CKVMUSER_INFO, CKVMUSER_EMULATION_FD, CKVMUSER_PA_RANGE, CKVMUSER_TIMEOUT],
        [UInt(0), 8, 0xffff_8000_0000_0000, UInt.max])
    func badPointer(command: UInt, pointer: UInt) throws {
        let device = try makeDevice()
        #expect(throws: Errno.badAddress) { try device.descriptor.ioctl(command, pointer) }
        // And nothing changed: there is no emulation descriptor, and no range.
        _ = try device.makeEmulationDescriptor()
        #expect(throws: ForwardingError(call: "KVM_DEV_USER_PA_RANGE", errno: .noSuchFileOrDirectory)) {
            try device.removeRange(0)
        }
    }

    @Test(
        "EMULATION_FD: unknown flags and padding are EINVAL",
        arguments: [
            // O_WRONLY, O_APPEND, the highest bit; then padding.
            (1, 0), (0o2000, 0), (0x8000_0000, 0), (0, 1), (0, UInt32.max),
        ] as [(UInt32, UInt32)])
    func emulationFlags(flags: UInt32, pad: UInt32) throws {
        let device = try makeDevice()
        let bad = kvm_dev_user_emulation_fd(flags: flags, pad: pad)
        #expect(errno(device, CKVMUSER_EMULATION_FD, bad) == .invalidArgument)
        _ = try device.makeEmulationDescriptor()
    }

    @Test("EMULATION_FD: O_CLOEXEC and O_NONBLOCK are taken over, and only they", arguments: [false, true])
    func emulationFlagsKept(nonBlocking: Bool) throws {
        let emulation = try makeDevice().makeEmulationDescriptor(nonBlocking: nonBlocking)
        let flags = DescriptorFlags(of: emulation.descriptor.rawValue)
        #expect(flags.closeOnExec)
        #expect(flags.nonBlocking == nonBlocking)
    }

    @Test("EMULATION_FD: a second live descriptor is EBUSY, after the last close one is made")
    func secondDescriptor() throws {
        let device = try makeDevice()
        let busy = ForwardingError(call: "KVM_DEV_USER_EMULATION_FD", errno: .resourceBusy)
        let first = try device.makeEmulationDescriptor()
        #expect(throws: busy) { _ = try device.makeEmulationDescriptor() }
        let copy = try first.duplicate()
        close(first)
        #expect(throws: busy) { _ = try device.makeEmulationDescriptor() }
        close(copy)
        _ = try device.makeEmulationDescriptor()
    }

    @Test(
        "PA_RANGE: every bad argument is EINVAL and changes nothing",
        arguments: [
            // wraps
            kvm_dev_user_pa_range(addr: UInt64.max, len: 2, bus: 0, id: 1, flags: 0, pad: 0),
            kvm_dev_user_pa_range(addr: UInt64.max - 0xfff, len: 0x1000, bus: 0, id: 1, flags: 0, pad: 0),
            // longer than KVM's bus can hold
            kvm_dev_user_pa_range(addr: 0x1_0000_0000, len: 0x8000_0000, bus: 0, id: 1, flags: 0, pad: 0),
            kvm_dev_user_pa_range(addr: 0, len: UInt64.max, bus: 0, id: 1, flags: 0, pad: 0),
            // unknown bus
            kvm_dev_user_pa_range(addr: 0x2000, len: 0x1000, bus: 2, id: 1, flags: 0, pad: 0),
            kvm_dev_user_pa_range(addr: 0x2000, len: 0x1000, bus: UInt32.max, id: 1, flags: 0, pad: 0),
            // ports past 64 KiB
            kvm_dev_user_pa_range(addr: 0xffff, len: 2, bus: 1, id: 1, flags: 0, pad: 0),
            kvm_dev_user_pa_range(addr: 0x10000, len: 1, bus: 1, id: 1, flags: 0, pad: 0),
            // unknown id
            kvm_dev_user_pa_range(addr: 0x2000, len: 0x1000, bus: 0, id: 64, flags: 0, pad: 0),
            kvm_dev_user_pa_range(addr: 0x2000, len: 0x1000, bus: 0, id: UInt32.max, flags: 0, pad: 0),
            // unknown flags, padding
            kvm_dev_user_pa_range(addr: 0x2000, len: 0x1000, bus: 0, id: 1, flags: 1, pad: 0),
            kvm_dev_user_pa_range(addr: 0x2000, len: 0x1000, bus: 0, id: 1, flags: 0x8000_0000, pad: 0),
            kvm_dev_user_pa_range(addr: 0x2000, len: 0x1000, bus: 0, id: 1, flags: 0, pad: 1),
            // a removal is checked as well
            kvm_dev_user_pa_range(addr: 0, len: 0, bus: 2, id: 0, flags: 0, pad: 0),
            kvm_dev_user_pa_range(addr: 0, len: 0, bus: 0, id: 0, flags: 1, pad: 0),
        ].map(RangeArgument.init))
    func badRange(_ argument: RangeArgument) throws {
        let device = try makeDevice()
        try device.setRange(0, to: GuestRange(.memory, at: 0xd000_0000, length: 0x1000))
        #expect(errno(device, CKVMUSER_PA_RANGE, argument.raw) == .invalidArgument)
        try device.removeRange(0)
        let none = ForwardingError(call: "KVM_DEV_USER_PA_RANGE", errno: .noSuchFileOrDirectory)
        #expect(throws: none) { try device.removeRange(1) }
    }

    @Test(
        "PA_RANGE: an overlap with another range of the device on that bus is EEXIST",
        arguments: [
            (0x1000, 0x1000), (0x0800, 0x0801), (0x1fff, 1), (0x0, 0x10000), (0x1400, 0x10),
        ] as [(UInt64, UInt64)])
    func overlap(address: UInt64, length: UInt64) throws {
        let device = try makeDevice()
        try device.setRange(0, to: GuestRange(.memory, at: 0x1000, length: 0x1000))
        #expect(throws: ForwardingError(call: "KVM_DEV_USER_PA_RANGE", errno: .fileExists)) {
            try device.setRange(1, to: GuestRange(.memory, at: address, length: length))
        }
        // Beside it, on the other bus, and over itself it may lie.
        try device.setRange(1, to: GuestRange(.memory, at: 0x2000, length: 0x1000))
        try device.setRange(2, to: GuestRange(.ports, at: 0x1000, length: 0x1000))
        try device.setRange(0, to: GuestRange(.memory, at: 0x800, length: 0x1000))
        // Another device may lie anywhere.
        try makeDevice().setRange(0, to: GuestRange(.memory, at: 0x800, length: 0x1000))
    }

    @Test("PA_RANGE: the longest range, the last port and the last id are legal")
    func extremes() throws {
        let device = try makeDevice()
        try device.setRange(0, to: GuestRange(.memory, at: 0x1_0000_0000, length: UInt64(KVM_USER_MAX_RANGE_LEN)))
        try device.setRange(63, to: GuestRange(.ports, at: 0, length: 0x10000))
        try device.setRange(1, to: GuestRange(.memory, at: UInt64.max - 1, length: 1))
    }

    @Test("PA_RANGE: a full bus is ENOSPC, and the range stays where it was")
    func fullBus() throws {
        let device = try makeDevice()
        try device.setRange(0, to: GuestRange(.memory, at: 0xd000_0000, length: 0x1000))
        let full = ForwardingError(call: "KVM_DEV_USER_PA_RANGE", errno: .noSpace)
        var others: [Box<ControlDescriptor>] = []
        var placed: UInt64 = 0
        #expect(throws: full) {
            // 1000 is KVM's limit.
            for _ in 0..<20 {
                let other = Box(try makeDevice())
                others.append(other)
                for id in 0..<UInt32(64) {
                    try other.value.setRange(
                        id, to: GuestRange(.memory, at: 0x1_0000_0000 + placed * 0x1000, length: 8))
                    placed += 1
                }
            }
        }
        #expect(placed > 900)
        #expect(throws: full) { try device.setRange(0, to: GuestRange(.memory, at: 0xe000_0000, length: 0x1000)) }
        // Removing takes no room, and gives some.
        try device.removeRange(0)
        try device.setRange(0, to: GuestRange(.memory, at: 0xe000_0000, length: 0x1000))
    }

    @Test("TIMEOUT takes any number of nanoseconds", arguments: [UInt64(0), 1, 5_000_000_000, UInt64.max])
    func timeout(nanoseconds: UInt64) throws {
        #expect(errno(try makeDevice(), CKVMUSER_TIMEOUT, nanoseconds) == nil)
    }

    @Test("attributes are not what this device has: ENODEV or EPERM from KVM itself")
    func attributes() throws {
        let device = try makeDevice()
        // KVM_SET_DEVICE_ATTR, KVM_GET_DEVICE_ATTR, KVM_HAS_DEVICE_ATTR of a device without them.
        for command: UInt in [0x4018_aee1, 0x4018_aee2, 0x4018_aee3] {
            let error = errno(device, command, (UInt64(0), UInt64(0), UInt64(0)))
            #expect(error == .notPermitted || error == .noSuchAddressOrDevice, "\(String(describing: error))")
        }
    }
}

/// A range argument that a failing test can print.
struct RangeArgument: Sendable, CustomTestStringConvertible {
    let raw: kvm_dev_user_pa_range

    var testDescription: String {
        "addr \(raw.addr) len \(raw.len) bus \(raw.bus) id \(raw.id) flags \(raw.flags) pad \(raw.pad)"
    }
}
