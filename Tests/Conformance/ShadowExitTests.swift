// SPDX-License-Identifier: Apache-2.0
//
// Rule B1 for a load that the shadow image was to answer: once it has slept, it is not left to the VMM.

import CKVMUser
import GuestPrograms
import KVM
import LinuxSystem
import Testing

@testable import MMIOForwarding

@Suite("A close under a shadow load")
struct ShadowExitTests {
    /// The emulation process's part: it owes the reply to a store when it goes.
    ///
    /// - Returns: the load that waited for that.
    private func leaveLoadWaiting(_ guest: ForwardedGuest) throws -> GuestMailbox.Ticket {
        let emulation = try guest.control.makeEmulationDescriptor()
        try emulation.shadowFirstPage()
        #expect(try guest.perform(.deviceLoad(4, 8)) == 0)
        try guest.perform(.deviceStore(1))
        _ = try emulation.take(exactly: 1)
        let load = try guest.begin(.deviceLoad(4, 8))
        try guest.expectWaiting(load)
        // It made no request.
        #expect(try emulation.poll(milliseconds: 0) == .writable)
        return load
    }

    @Test("B1, F1: a shadow load that waits while the descriptor closes under EXIT is no exit, the next one is")
    func exit() throws {
        try ForwardedGuest.run { guest in
            var policy = kvm_dev_user_on_close(policy: UInt32(KVM_USER_ON_CLOSE_EXIT), pad: 0)
            _ = try guest.control.call("KVM_DEV_USER_ON_CLOSE", CKVMUSER_ON_CLOSE, &policy)
            let load = try leaveLoadWaiting(guest)
            #expect(try guest.finish(load) == 0xffff_ffff)
            #expect(guest.exits.isEmpty)
            #expect(try guest.perform(.deviceLoad(4, 8)) == ForwardedGuest.unforwardedValue & 0xffff_ffff)
            #expect(guest.exits.count == 1)
        }
    }
}

extension EmulationDescriptor {
    /// Has an image, all zeroes, answer every load from the first page of range 0.
    func shadowFirstPage() throws {
        var size: UInt64 = 4096
        _ = try descriptor.ioctl(CKVMUSER_SHADOW_SIZE, &size)
        var entry = kvm_user_shadow_entry(offset: 0, len: size, image_offset: 0, range_id: 0, sizes: 15)
        try unsafe withUnsafeBytes(of: &entry) { bytes in
            var map = kvm_dev_user_shadow_ctrl(
                entries: UInt64(UInt(bitPattern: bytes.baseAddress)), nr_entries: 1, pad: 0)
            _ = try descriptor.ioctl(CKVMUSER_SHADOW_CTRL, &map)
        }
    }
}
