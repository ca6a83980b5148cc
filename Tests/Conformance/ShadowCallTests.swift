// SPDX-License-Identifier: Apache-2.0
//
// SHADOW_SIZE, SHADOW_CTRL and mmap: every argument that they must refuse, and that the builder agrees.

import CConformance
import CKVMUser
import Glibc
import GuestPrograms
import KVM
import LinuxSystem
import SeededRandom
import SystemPackage
import Testing

@testable import MMIOForwarding

@Suite("Shadow memory calls")
final class ShadowCallTests {
    let machine: VirtualMachine
    let control: ControlDescriptor
    let emulation: EmulationDescriptor

    init() throws {
        try ModuleUnderTest.load()
        machine = try KVMSystem().makeVirtualMachine()
        control = try ControlDescriptor(in: machine)
        emulation = try control.makeEmulationDescriptor()
    }

    private func errno(_ call: () throws(ForwardingError) -> Void) -> Errno? {
        do throws(ForwardingError) {
            try call()
            return nil
        } catch {
            return error.errno
        }
    }

    @Test("INFO on the emulation descriptor says what the control descriptor says, and the image's size")
    func information() throws {
        #expect(try emulation.information() == (try control.information()))
        #expect(try emulation.information().shadowSize == 0)
        #expect(try emulation.information().features.isSuperset(of: [.exchange, .shadow]))
        try emulation.setShadowSize(8192)
        #expect(try emulation.information().shadowSize == 8192)
        #expect(try control.information().shadowSize == 8192)
    }

    // MARK: SHADOW_SIZE

    @Test("SHADOW_SIZE: 0 or part of a page is EINVAL", arguments: [0, 1, 4095, 4097, 0xfffff, .max] as [UInt64])
    func badSize(size: UInt64) throws {
        #expect(errno { () throws(ForwardingError) in try emulation.setShadowSize(size) } == .invalidArgument)
        #expect(try emulation.information().shadowSize == 0)
    }

    @Test(
        "SHADOW_SIZE: more than the module's parameter is E2BIG, the parameter itself is legal",
        arguments: [0x10_1000, 0x1_0000_0000, 0xffff_ffff_ffff_f000] as [UInt64])
    func tooLarge(size: UInt64) throws {
        #expect(errno { () throws(ForwardingError) in try emulation.setShadowSize(size) } == .argListTooLong)
        try emulation.setShadowSize(try emulation.information().maximumShadowSize)
        #expect(try emulation.mapShadowImage(size: 1 << 20).load(at: 1 << 20 - 8, length: 8) == 0)
    }

    @Test("SHADOW_SIZE: the bound is the parameter max_shadow_size, which can be 0")
    func parameter() throws {
        let usual = try #require(ModuleUnderTest.parameter("max_shadow_size"))
        defer { try? ModuleUnderTest.set("max_shadow_size", to: usual) }
        try ModuleUnderTest.set("max_shadow_size", to: "8192")
        #expect(try emulation.information().maximumShadowSize == 8192)
        try emulation.setShadowSize(8192)
        #expect(errno { () throws(ForwardingError) in try emulation.setShadowSize(12288) } == .argListTooLong)
        try ModuleUnderTest.set("max_shadow_size", to: "0")
        #expect(errno { () throws(ForwardingError) in try emulation.setShadowSize(4096) } == .argListTooLong)
    }

    @Test("SHADOW_SIZE: EBUSY while there is a map or a mapping; then the new image is zeroed")
    func busy() throws {
        var image: ShadowImage? = try emulation.makeShadow(pages: 1)
        try image?.store(7, at: 0, length: 8)
        func resize() -> Errno? { errno { () throws(ForwardingError) in try emulation.setShadowSize(8192) } }
        #expect(resize() == .resourceBusy)
        try emulation.setShadowMap(imageSize: 4096, .whole(0, 8))
        image = nil
        #expect(resize() == .resourceBusy)
        try emulation.setShadowMap(ShadowMap(imageSize: 4096))
        #expect(eventually { resize() == nil })
        #expect(try emulation.mapShadowImage(size: 8192).load(at: 0, length: 8) == 0)
    }

    @Test(
        "A bad pointer is EFAULT", arguments: [CKVMUSER_INFO, CKVMUSER_SHADOW_SIZE, CKVMUSER_SHADOW_CTRL],
        [UInt(0), 8, 0xffff_8000_0000_0000, UInt.max])
    func badPointer(command: UInt, pointer: UInt) {
        #expect(throws: Errno.badAddress) { try emulation.descriptor.ioctl(command, pointer) }
    }

    @Test("The VMM's descriptor has none of these calls: ENOTTY")
    func onControlDescriptor() {
        for command in [CKVMUSER_SHADOW_SIZE, CKVMUSER_SHADOW_CTRL, CKVMUSER_EXCHANGE] {
            #expect(throws: Errno.inappropriateIOCTLForDevice) { try control.descriptor.ioctl(command) }
        }
    }

    @Test("After the VM is gone, mmap and every ioctl are ENODEV")
    func machineGone() throws {
        let emulation = try Self.makeAndDropMachine()
        #expect(try eventually { try emulation.poll(milliseconds: 0).contains(.machineGone) })
        for command in [CKVMUSER_INFO, CKVMUSER_SHADOW_SIZE, CKVMUSER_SHADOW_CTRL, CKVMUSER_EXCHANGE] {
            #expect(throws: Errno.noDevice) { try emulation.descriptor.ioctl(command) }
        }
        #expect(throws: ForwardingError(call: "mmap of the shadow image", errno: .noDevice)) {
            _ = try emulation.mapShadowImage(size: 4096)
        }
    }

    private static func makeAndDropMachine() throws -> EmulationDescriptor {
        let control = try ControlDescriptor(in: try KVMSystem().makeVirtualMachine())
        let emulation = try control.makeEmulationDescriptor()
        try emulation.setShadowSize(4096)
        return emulation
    }

    // MARK: mmap

    /// mmap(2), unmapped at once if it succeeds; the errno if not.
    private func map(
        _ count: Int, at offset: Int = 0, flags: CInt = MAP_SHARED, protection: CInt = PROT_READ | PROT_WRITE
    ) -> Errno? {
        let address = unsafe mmap(nil, count, protection, flags, emulation.descriptor.rawValue, offset)
        guard UInt(bitPattern: address) != UInt.max else { return Errno(rawValue: Glibc.errno) }
        _ = unsafe munmap(address, count)
        return nil
    }

    @Test("mmap: private is EINVAL, executable EPERM, beyond the image's end EINVAL, as without an image")
    func mappings() throws {
        #expect(map(4096) == .invalidArgument)
        try emulation.setShadowSize(2 * 4096)
        #expect(map(8192) == nil)
        #expect(map(1) == nil)
        #expect(map(4096, at: 4096) == nil)
        #expect(map(4096, protection: PROT_READ) == nil)
        #expect(map(4096, protection: PROT_NONE) == nil)
        #expect(map(4096, flags: MAP_PRIVATE) == .invalidArgument)
        #expect(map(4096, protection: PROT_READ | PROT_EXEC) == .notPermitted)
        #expect(map(4096, protection: PROT_EXEC) == .notPermitted)
        #expect(map(8193) == .invalidArgument)
        #expect(map(3 * 4096) == .invalidArgument)
        #expect(map(8192, at: 4096) == .invalidArgument)
        #expect(map(4096, at: 8192) == .invalidArgument)
        #expect(map(4096, at: 1 << 40) == .invalidArgument)
        #expect(map(4096, at: Int.max & ~4095) != nil)
        // And none of them is left.
        #expect(eventually { (try? emulation.setShadowSize(4096)) != nil })
    }

    @Test("mmap: parts of the image are where they should be, in several mappings at once")
    func parts() throws {
        let whole = try emulation.makeShadow(pages: 3)
        let second = try MemoryMapping(mapping: emulation.descriptor, offset: 4096, count: 8192)
        try whole.store(0x1122_3344, at: 4096 + 16, length: 4)
        try whole.store(0x5566_7788, at: 8192 + 16, length: 4)
        #expect(unsafe (second.baseAddress + 16).load(as: UInt32.self) == 0x1122_3344)
        #expect(unsafe (second.baseAddress + 4096 + 16).load(as: UInt32.self) == 0x5566_7788)
    }

    @Test("mprotect: a mapping cannot be made executable, and stays as it was")
    func protection() throws {
        try emulation.setShadowSize(4096)
        let mapping = try MemoryMapping(mapping: emulation.descriptor, count: 4096)
        for protection in [PROT_EXEC, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE | PROT_EXEC] {
            #expect(throws: Errno.notPermitted) {
                try systemCall(onInterrupt: .fail) { unsafe mprotect(mapping.baseAddress, 4096, protection) }
            }
        }
        unsafe mapping.baseAddress.storeBytes(of: 5, as: UInt8.self)
        try systemCall(onInterrupt: .fail) { unsafe mprotect(mapping.baseAddress, 4096, PROT_READ) }
        #expect(unsafe mapping.baseAddress.load(as: UInt8.self) == 5)
    }

    @Test("mremap: a mapping that grows finds nothing beyond the image")
    func growing() throws {
        try emulation.setShadowSize(2 * 4096)
        let address = unsafe mmap(
            nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, emulation.descriptor.rawValue, 4096)
        // Whether it may grow is the kernel's affair; what is then there is the module's.
        let grown = unsafe try #require(cconformance_grow(address, 4096, 3 * 4096))
        defer { _ = unsafe munmap(grown, 3 * 4096) }
        // A system call says EFAULT where an access would be SIGBUS.
        let file = try OwnedDescriptor.memoryFile(count: 0)
        func isThere(_ page: Int) -> Bool {
            unsafe Glibc.write(file.rawValue, grown + page * 4096, 1) == 1
        }
        #expect(isThere(0))
        #expect(!isThere(1))
        #expect(Glibc.errno == EFAULT)
        #expect(!isThere(2))
    }

    // MARK: SHADOW_CTRL

    /// KVM_DEV_USER_SHADOW_CTRL with any argument; nil if it succeeds.
    private func setMap(_ entries: [kvm_user_shadow_entry], count: UInt32? = nil, pad: UInt32 = 0) -> Errno? {
        unsafe entries.withUnsafeBufferPointer { entries in
            setMap(at: UInt(bitPattern: entries.baseAddress), count: count ?? UInt32(entries.count), pad: pad)
        }
    }

    private func setMap(at address: UInt, count: UInt32, pad: UInt32 = 0) -> Errno? {
        var raw = kvm_dev_user_shadow_ctrl(entries: UInt64(address), nr_entries: count, pad: pad)
        do throws(Errno) {
            try emulation.descriptor.ioctl(CKVMUSER_SHADOW_CTRL, &raw)
            return nil
        } catch {
            return error
        }
    }

    private func entry(
        _ offset: UInt64, _ length: UInt64, image: UInt64 = 0, range: UInt32 = 0, sizes: UInt32 = 15
    ) -> kvm_user_shadow_entry {
        kvm_user_shadow_entry(offset: offset, len: length, image_offset: image, range_id: range, sizes: sizes)
    }

    @Test("SHADOW_CTRL: without an image every entry is EINVAL, and no entries are legal")
    func noImage() {
        #expect(setMap([entry(0, 8)]) == .invalidArgument)
        #expect(setMap([]) == nil)
    }

    @Test("SHADOW_CTRL: padding is EINVAL, too many entries E2BIG, entries that fault EFAULT")
    func badArguments() throws {
        try emulation.setShadowSize(4096)
        #expect(setMap([entry(0, 8)], pad: 1) == .invalidArgument)
        #expect(setMap([], pad: UInt32.max) == .invalidArgument)
        #expect(setMap([entry(0, 8)], count: UInt32(KVM_USER_MAX_SHADOW_ENTRIES) + 1) == .argListTooLong)
        #expect(setMap([entry(0, 8)], count: UInt32.max) == .argListTooLong)
        for address: UInt in [0, 8, 0xffff_8000_0000_0000, UInt.max - 31] {
            #expect(setMap(at: address, count: 1) == .badAddress)
        }
        let edge = try FaultingBuffer(usable: 33)
        #expect(setMap(at: edge.address, count: 2) == .badAddress)
    }

    @Test("SHADOW_CTRL: as many entries as the header says are legal, in any order")
    func mostEntries() throws {
        try emulation.setShadowSize(4096)
        var random = SeededGenerator(seed: 4)
        let entries = (0..<UInt64(KVM_USER_MAX_SHADOW_ENTRIES)).map {
            entry(8 * ($0 / 64), 8, image: 8 * ($0 % 512), range: UInt32($0 % 64))
        }
        #expect(setMap(entries.shuffled(using: &random)) == nil)
    }

    @Test("SHADOW_CTRL: every bad entry is EINVAL for kernel and builder alike, and the old map stays")
    func badEntries() throws {
        try emulation.setShadowSize(4096)
        let bad = [
            [entry(0, 0)], [entry(0, 8, range: 64)], [entry(0, 8, range: UInt32.max)], [entry(0, 8, sizes: 0)],
            [entry(0, 8, sizes: 16)], [entry(0, 8, sizes: 0x8000_0001)], [entry(0, 4097)], [entry(0, 1, image: 4096)],
            [entry(0, 8, image: 4089)], [entry(0, 8, image: UInt64.max)], [entry(0, UInt64.max)],
            [entry(0, UInt64.max, image: 1)], [entry(UInt64.max, 1)], [entry(UInt64.max - 7, 8)],
            [entry(0, 8), entry(0, 8)], [entry(8, 8), entry(0, 9)], [entry(0, 16), entry(8, 1)],
            [entry(0, 4096), entry(4095, 1), entry(0, 8, range: 1)], [entry(0, 8), entry(16, 8), entry(8, 9)],
            [entry(0, 8, range: 7), entry(100, 0, range: 6)],
        ]
        try emulation.setShadowMap(imageSize: 4096, .whole(0, 8))
        for entries in bad {
            #expect(setMap(entries) == .invalidArgument, "\(entries)")
            #expect(!isAccepted(entries), "\(entries)")
        }
        // There still is a map.
        #expect(throws: ForwardingError(call: "KVM_DEV_USER_SHADOW_SIZE", errno: .resourceBusy)) {
            try emulation.setShadowSize(8192)
        }
    }

    @Test("SHADOW_CTRL: entries at the edges are legal for kernel and builder alike")
    func goodEntries() throws {
        try emulation.setShadowSize(4096)
        let good = [
            [entry(0, 4096)], [entry(0, 1, image: 4095)], [entry(UInt64.max - 8, 8)], [entry(1, 3, image: 2, sizes: 8)],
            [entry(0, 8), entry(8, 8), entry(16, 8)], [entry(0, 8, range: 63), entry(0, 8, range: 0)],
            [entry(1 << 63, 4096), entry(0, 4096)],
        ]
        for entries in good {
            #expect(setMap(entries) == nil, "\(entries)")
            #expect(isAccepted(entries), "\(entries)")
        }
    }

    /// Whether the builder takes them.
    private func isAccepted(_ entries: [kvm_user_shadow_entry]) -> Bool {
        map(of: entries) != nil
    }

    private func map(of entries: [kvm_user_shadow_entry]) -> ShadowMap? {
        var map = ShadowMap(imageSize: 4096, maximumRanges: 64)
        for entry in entries {
            do throws(ShadowMap.Fault) {
                try map.add(
                    ShadowMap.Entry(
                        rangeID: entry.range_id, offset: entry.offset, length: entry.len,
                        imageOffset: entry.image_offset, widths: ShadowMap.Widths(rawValue: entry.sizes)))
            } catch {
                return nil
            }
        }
        return map
    }

    @Test("SHADOW_CTRL: of 3,000 generated maps, kernel and builder take and refuse the same", arguments: [1, 2, 3])
    func generated(seed: UInt64) throws {
        try emulation.setShadowSize(4096)
        var random = SeededGenerator(seed: seed)
        var accepted = 0
        for number in 0..<1000 {
            let entries = (0..<Int.random(in: 1...5, using: &random)).map { _ in Self.anyEntry(using: &random) }
            let error = setMap(entries)
            let isAccepted = isAccepted(entries)
            #expect(error == (isAccepted ? nil : .invalidArgument), "map \(number) of seed \(seed): \(entries)")
            if isAccepted { accepted += 1 }
        }
        #expect(accepted > 100 && accepted < 900, "\(accepted)")
    }

    @Test("O4: with generated maps, exactly the loads that the builder finds are answered, from where it says")
    func generatedLoads() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            let image = try emulation.makeShadow(pages: 1)
            for offset in stride(from: UInt64(0), to: 4096, by: 8) {
                try image.store((offset / 8) &* 0x9e37_79b9_7f4a_7c15, at: offset, length: 8)
            }
            var random = SeededGenerator(seed: 11)
            var hits = 0
            for _ in 0..<150 {
                var map = ShadowMap(imageSize: 4096)
                for _ in 0..<4 {
                    try? map.add(
                        .part(
                            0, .random(in: 0..<64, using: &random), .random(in: 1..<32, using: &random),
                            at: .random(in: 0..<4000, using: &random) & (Bool.random(using: &random) ? ~7 : ~0),
                            widths: ShadowMap.Widths(rawValue: .random(in: 1..<16, using: &random))))
                }
                try emulation.setShadowMap(map)
                let length = 1 << Int.random(in: 0..<4, using: &random)
                let offset = UInt64.random(in: 0..<80, using: &random)
                let load = try guest.begin(.deviceLoad(length, offset))
                if let place = map.imageOffset(of: offset, length: length, in: 0) {
                    hits += 1
                    #expect(try guest.finish(load) == (try image.load(at: place, length: length)))
                } else {
                    try emulation.reply(try emulation.take(exactly: 1)[0], 0x77)
                    #expect(try guest.finish(load) == 0x77)
                }
            }
            #expect(hits > 10)
            #expect(try DebugCounters.ofNewestDevice()["shadow_hits"] == hits)
        }
    }

    /// An entry that is often good, and otherwise bad in any field.
    private static func anyEntry(using random: inout SeededGenerator) -> kvm_user_shadow_entry {
        func number(below bound: UInt64) -> UInt64 {
            switch UInt8.random(in: 0..<24, using: &random) {
            case 0: .random(in: 0...(.max), using: &random)
            case 1: 0 &- .random(in: 0..<64, using: &random)
            case 2: 1 << UInt64.random(in: 0..<64, using: &random)
            case 3: 0
            default: .random(in: 0..<bound, using: &random)
            }
        }
        return kvm_user_shadow_entry(
            offset: number(below: 512), len: number(below: 64), image_offset: number(below: 4032),
            range_id: UInt32(truncatingIfNeeded: number(below: 4)),
            sizes: UInt32(truncatingIfNeeded: number(below: 15) &+ 1))
    }
}
