// SPDX-License-Identifier: Apache-2.0
//
// The ABI as a 32-bit program uses it on a 64-bit kernel.

import CConformance
import CKVMUser
import Glibc
import GuestPrograms
import LinuxSystem
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("32-bit callers")
struct CompatibilityTests {
    /// A page whose address fits 32 bits.
    @safe private final class LowPage {
        let address: UInt32
        private let start: UnsafeMutableRawPointer

        init() throws {
            let flags = MAP_PRIVATE | MAP_ANONYMOUS | 0x40  // MAP_32BIT
            guard let start = unsafe mmap(nil, 4096, PROT_READ | PROT_WRITE, flags, -1, 0),
                let address = UInt32(exactly: UInt(bitPattern: start))
            else { throw Errno.noMemory }
            unsafe self.start = unsafe start
            self.address = address
        }

        deinit {
            _ = unsafe munmap(start, 4096)
        }

        func store<Value: BitwiseCopyable>(_ value: Value) {
            unsafe start.storeBytes(of: value, as: Value.self)
        }

        func load<Value: BitwiseCopyable>(_: Value.Type) -> Value {
            unsafe start.load(as: Value.self)
        }
    }

    @Test("every ioctl, read and write does what it does for a 64-bit caller")
    func allCalls() throws {
        try ForwardedGuest.run { guest in
            let page = try LowPage()
            let control = guest.control.descriptor.rawValue
            func ioctl32(_ descriptor: CInt, _ command: UInt) -> Int32 {
                cconformance_ioctl32(descriptor, UInt32(command), page.address)
            }
            #expect(ioctl32(control, CKVMUSER_INFO) == 0)
            #expect(DeviceInformation(page.load(kvm_dev_user_info.self)) == (try guest.control.information()))

            page.store(kvm_dev_user_pa_range(addr: 0xe000_0000, len: 0x1000, bus: 0, id: 0, flags: 0, pad: 0))
            #expect(ioctl32(control, CKVMUSER_PA_RANGE) == 0)
            page.store(UInt64(60_000_000_000))
            #expect(ioctl32(control, CKVMUSER_TIMEOUT) == 0)
            page.store(kvm_dev_user_emulation_fd(flags: 1, pad: 0))
            #expect(ioctl32(control, CKVMUSER_EMULATION_FD) == -EINVAL)
            page.store(kvm_dev_user_emulation_fd(flags: 0, pad: 0))
            let emulation = OwnedDescriptor(adopting: ioctl32(control, CKVMUSER_EMULATION_FD))
            #expect(emulation.rawValue >= 0)
            #expect(ioctl32(control, 0xaeff) == -ENOTTY)
            #expect(ioctl32(emulation.rawValue, 0xaeff) == -ENOTTY)

            let load = try guest.begin(.load(4, at: 0xe000_0010))
            #expect(cconformance_read32(emulation.rawValue, page.address, 4096) == 40)
            var request = page.load(kvm_user_request.self)
            #expect(request.offset == 0x10)
            request.data = 0x32
            page.store(request)
            #expect(cconformance_write32(emulation.rawValue, page.address, 40) == 40)
            #expect(try guest.finish(load) == 0x32)
        }
    }

    @Test("INFO, SHADOW_SIZE, SHADOW_CTRL and EXCHANGE on the emulation descriptor as well")
    func emulationCalls() throws {
        try ForwardedGuest.run { guest in
            let page = try LowPage()
            let emulation = try guest.control.makeEmulationDescriptor()
            let number = emulation.descriptor.rawValue
            func ioctl32(_ command: UInt) -> Int32 { cconformance_ioctl32(number, UInt32(command), page.address) }
            #expect(ioctl32(CKVMUSER_INFO) == 0)
            #expect(DeviceInformation(page.load(kvm_dev_user_info.self)) == (try emulation.information()))

            page.store(UInt64(4096))
            #expect(ioctl32(CKVMUSER_SHADOW_SIZE) == 0)
            try emulation.mapShadowImage(size: 4096).store(0x5a5a_0001, at: 0x20, length: 4)
            // The entry lies behind the structure that points at it.
            page.store(
                ShadowCall(
                    call: kvm_dev_user_shadow_ctrl(entries: UInt64(page.address) + 16, nr_entries: 1, pad: 0),
                    entry: kvm_user_shadow_entry(offset: 0, len: 64, image_offset: 0, range_id: 0, sizes: 4)))
            #expect(ioctl32(CKVMUSER_SHADOW_CTRL) == 0)
            #expect(try guest.perform(.deviceLoad(4, 0x20)) == 0x5a5a_0001)

            let load = try guest.begin(.deviceLoad(8, 0x20))
            let room = UInt64(page.address) + 32
            page.store(
                ExchangeCall(
                    call: kvm_dev_user_exchange(
                        replies: room, requests: room, nr_replies: 0, nr_requests: 1,
                        flags: UInt32(KVM_USER_EXCHANGE_WAIT), pad: 0), request: kvm_user_request()))
            #expect(ioctl32(CKVMUSER_EXCHANGE) == 0)
            var exchange = page.load(ExchangeCall.self)
            #expect(exchange.call.nr_requests == 1)
            #expect(exchange.request.offset == 0x20)
            exchange.request.data = 0x64
            exchange.call.nr_replies = 1
            exchange.call.nr_requests = 0
            page.store(exchange)
            #expect(ioctl32(CKVMUSER_EXCHANGE) == 0)
            #expect(try guest.finish(load) == 0x64)
        }
    }

    private struct ShadowCall: BitwiseCopyable {
        let call: kvm_dev_user_shadow_ctrl
        let entry: kvm_user_shadow_entry
    }

    private struct ExchangeCall: BitwiseCopyable {
        var call: kvm_dev_user_exchange
        var request: kvm_user_request
    }
}
