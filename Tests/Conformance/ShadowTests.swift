// SPDX-License-Identifier: Apache-2.0
//
// Rule O4, loads from shadow memory: which are answered, with what, and when.

import GuestPrograms
import KVM
import KernelModule
import LinuxSystem
import MMIOForwarding
import Synchronization
import SystemPackage
import Testing

@Suite("Shadow memory")
struct ShadowTests {
    /// Runs `body` with a guest whose ranges 0 and 1 are all in an image of 4 pages, where every byte differs from its
    /// neighbours, and every width is served.
    private func withShadow(
        vcpus: Int = 1, timeout: Duration = .seconds(60),
        _ body: (ForwardedGuest, borrowing EmulationDescriptor, borrowing ShadowImage) throws -> Void
    ) throws {
        try ForwardedGuest.run(vcpus: vcpus, timeout: timeout) { guest in
            let emulation = try guest.control.makeEmulationDescriptor(nonBlocking: true)
            let image = try emulation.makeShadow(pages: 4)
            for offset in stride(from: 0, to: UInt64(image.size), by: 8) {
                try image.store(Self.pattern(offset, 8), at: offset, length: 8)
            }
            try emulation.setShadowMap(imageSize: image.size, .whole(0, 0x4000), .whole(1, 8, at: 0x100))
            try body(guest, emulation, image)
        }
    }

    /// What the image has at an offset at first.
    private static func pattern(_ offset: UInt64, _ length: Int) -> UInt64 {
        (0..<UInt64(length)).reduce(0) { $0 | (((offset + $1) &* 37 &+ (offset + $1) >> 8) & 0xff) << (8 * $1) }
    }

    // MARK: Which loads, and their values

    @Test("O4: a load that the map covers makes no request, and has the image's value", arguments: [1, 2, 4, 8])
    func covered(length: Int) throws {
        try withShadow { guest, emulation, image in
            let offsets: [UInt64] = [0, 8, 0xff8, 0x1000, 0x2340, 0x4000 - UInt64(length)]
            for offset in offsets {
                #expect(try guest.perform(.deviceLoad(length, offset)) == Self.pattern(offset, length))
            }
            try image.store(0x1122_3344_5566_7788, at: 8, length: 8)
            #expect(
                try guest.perform(.deviceLoad(length, 8)) == 0x1122_3344_5566_7788 & ForwardedRequest.mask(length))
            #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
            let counters = try DebugCounters.ofNewestDevice()
            #expect(counters["shadow_hits"] == offsets.count + 1)
            #expect(counters["requests"] == 0)
        }
    }

    @Test("O4: so does a load from a port", arguments: [1, 2, 4])
    func ports(length: Int) throws {
        try withShadow { guest, emulation, _ in
            for offset in stride(from: UInt64(0), to: 8, by: length) {
                let value = try guest.perform(.load(length, at: ForwardedGuest.port + offset, on: .port))
                #expect(value == Self.pattern(0x100 + offset, length))
            }
            #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
        }
    }

    @Test("O4: string instructions and 16-byte loads find their parts, without a request")
    func wholeBlocks() throws {
        try ModuleUnderTest.load()
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: 1)
        let control = try ControlDescriptor(in: guest.machine)
        try control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0x1000))
        let emulation = try control.makeEmulationDescriptor(nonBlocking: true)
        let image = try emulation.makeShadow(pages: 1)
        for index in UInt64(0)..<512 { try image.store(index &* 0x9e37_79b9, at: 8 * index, length: 8) }
        try emulation.setShadowMap(imageSize: image.size, .whole(0, 0x1000))
        let results = try guest.start(.stringCopyIn(.eight), .init(target: ForwardedGuest.base, count: 512), on: 0)
            .join()
        #expect(results.values == (0..<512).map { UInt64($0) &* 0x9e37_79b9 })
        #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
    }

    /// A load, and the map entries around it.
    struct Uncovered: CustomTestStringConvertible {
        let testDescription: String
        let offset: UInt64
        let length: Int
        let entries: [ShadowMap.Entry]

        init(_ description: String, _ offset: UInt64, _ length: Int, _ entries: ShadowMap.Entry...) {
            testDescription = description
            self.offset = offset
            self.length = length
            self.entries = entries
        }
    }

    private static let uncovered: [Uncovered] = [
        Uncovered("in no entry", 0x20, 4, .whole(0, 0x20)),
        Uncovered("in another range's entry", 0x20, 4, .whole(1, 0x1000)),
        Uncovered("before an entry", 0x1c, 4, .part(0, 0x20, 0x20)),
        Uncovered("over an entry's beginning", 0x20, 8, .part(0, 0x24, 0x20)),
        Uncovered("over an entry's end", 0x20, 8, .part(0, 0x20, 4)),
        Uncovered("across two entries that touch", 0x20, 8, .part(0, 0x20, 4), .part(0, 0x24, 4, at: 4)),
        Uncovered("of a width that is not served", 0x20, 4, .part(0, 0x20, 8, widths: [.one, .two, .eight])),
        Uncovered("wider than all that is served", 0x20, 8, .part(0, 0x20, 8, widths: [.four])),
        Uncovered("narrower than all that is served", 0x20, 1, .part(0, 0x20, 8, widths: [.eight])),
        Uncovered("2 bytes, unaligned", 0x21, 2, .whole(0, 0x1000)),
        Uncovered("4 bytes, unaligned", 0x22, 4, .whole(0, 0x1000)),
        Uncovered("8 bytes, unaligned", 0x24, 8, .whole(0, 0x1000)),
        Uncovered("2 bytes, unaligned in the image", 0x20, 2, .part(0, 0x20, 8, at: 1)),
        Uncovered("8 bytes, unaligned in the image", 0x20, 8, .part(0, 0x20, 8, at: 4)),
    ]

    @Test("O4: any other load is forwarded", arguments: uncovered)
    func forwarded(load: Uncovered) throws {
        try withShadow { guest, emulation, image in
            var map = ShadowMap(imageSize: image.size)
            for entry in load.entries { try map.add(entry) }
            try emulation.setShadowMap(map)
            let ticket = try guest.begin(.deviceLoad(load.length, load.offset))
            let request = try emulation.take(exactly: 1)[0]
            #expect(request.offset == load.offset)
            #expect(request.length == load.length)
            try emulation.reply(request, 0x7a7b_7c7d_7e7f_7071)
            #expect(try guest.finish(ticket) == 0x7a7b_7c7d_7e7f_7071 & ForwardedRequest.mask(load.length))
            #expect(try DebugCounters.ofNewestDevice()["shadow_hits"] == 0)
        }
    }

    @Test("O4: of a load that crosses a page, parts of 3, 5, 6 and 7 bytes are forwarded", arguments: 1...7)
    func fragments(before: Int) throws {
        try withShadow { guest, emulation, _ in
            let offset = 0x1000 - UInt64(before)
            let ticket = try guest.begin(.deviceLoad(8, offset))
            var expected: UInt64 = 0
            var done = 0
            for length in [before, 8 - before] {
                let at = offset + UInt64(done)
                if [1, 2, 4].contains(length) {
                    expected |= Self.pattern(at, length) << UInt64(8 * done)
                } else {
                    let request = try emulation.take(exactly: 1)[0]
                    #expect(request.offset == at)
                    #expect(request.length == length)
                    try emulation.reply(request, 0xf1f2_f3f4_f5f6_f7f8)
                    expected |= (0xf1f2_f3f4_f5f6_f7f8 & ForwardedRequest.mask(length)) << UInt64(8 * done)
                }
                done += length
            }
            #expect(try guest.finish(ticket) == expected)
        }
    }

    @Test("O4: at the very end of the image nothing beyond it is read", arguments: 1...7)
    func imageEnd(before: Int) throws {
        try withShadow { guest, emulation, _ in
            // The second part is outside of the range, and goes to the VMM.
            let offset = 0x4000 - UInt64(before)
            let ticket = try guest.begin(.deviceLoad(8, offset))
            let isServed = [1, 2, 4].contains(before)
            if !isServed { try emulation.reply(try emulation.take(exactly: 1)[0], 0) }
            let value = try guest.finish(ticket)
            #expect(value & ForwardedRequest.mask(before) == (isServed ? Self.pattern(offset, before) : 0))
        }
    }

    @Test("O4: several places of the guest may show one place of the image")
    func aliases() throws {
        try withShadow { guest, emulation, image in
            try emulation.setShadowMap(
                imageSize: image.size, .part(0, 0, 8, at: 0x80), .part(0, 0x1000, 8, at: 0x80),
                .part(1, 0, 8, at: 0x80))
            try image.store(0x5152_5354, at: 0x80, length: 4)
            #expect(try guest.perform(.deviceLoad(4)) == 0x5152_5354)
            #expect(try guest.perform(.deviceLoad(4, 0x1000)) == 0x5152_5354)
            #expect(try guest.perform(.load(4, at: ForwardedGuest.port, on: .port)) == 0x5152_5354)
        }
    }

    @Test("O4: a range may be placed, moved and removed after it is in the map")
    func movingRange() throws {
        try withShadow { guest, emulation, image in
            try emulation.setShadowMap(imageSize: image.size, .whole(0, 0x4000), .whole(9, 0x1000))
            for address: UInt64 in [0xe000_0000, 0xe100_0000] {
                try guest.control.setRange(9, to: GuestRange(.memory, at: address, length: 0x1000))
                #expect(try guest.perform(.load(8, at: address + 0x10)) == Self.pattern(0x10, 8))
            }
            try guest.control.removeRange(9)
            #expect(try guest.perform(.load(8, at: 0xe100_0010)) == ForwardedGuest.unforwardedValue)
        }
    }

    // MARK: When

    @Test("O4: it waits until all of its vCPU's stores are replied to, read or not, and then has what came with that")
    func afterOwnStores() throws {
        try withShadow { guest, emulation, image in
            for value in 0..<3 { try guest.perform(.deviceStore(UInt128(value), 8, 0x40)) }
            let load = try guest.begin(.deviceLoad(8, 0x40))
            try guest.expectWaiting(load)
            let stores = try emulation.takeNow()
            // No request for the load.
            #expect(stores.map(\.kind) == [.store, .store, .store])
            try guest.expectWaiting(load)
            try emulation.reply(stores[2])
            try emulation.reply(stores[0])
            try guest.expectWaiting(load)
            try image.store(0xabcd, at: 0x40, length: 8)
            try emulation.reply(stores[1])
            #expect(try guest.finish(load) == 0xabcd)
            #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
        }
    }

    @Test("O4: stores to other places of the device count as well, those of other vCPUs do not (O5)")
    func othersStores() throws {
        try withShadow(vcpus: 2) { guest, emulation, _ in
            for value in 0..<5 { try guest.perform(.deviceStore(UInt128(value), 8, 0x40), on: 1) }
            #expect(try guest.perform(.deviceLoad(8, 0x40), on: 0) == Self.pattern(0x40, 8))
            let waiting = try guest.begin(.deviceLoad(8, 0x3000), on: 1)
            try guest.expectWaiting(waiting, on: 1)
            #expect(try guest.perform(.deviceLoad(8, 0x3000), on: 0) == Self.pattern(0x3000, 8))
            try emulation.acknowledge(try emulation.take(exactly: 5))
            #expect(try guest.finish(waiting, on: 1) == Self.pattern(0x3000, 8))
        }
    }

    @Test("O4: a store to a place that the map covers is a request like any other (O2)")
    func storesAreForwarded() throws {
        try withShadow { guest, emulation, image in
            try guest.perform(.deviceStore(0x99, 8, 0x40))
            let store = try emulation.take(exactly: 1)[0]
            #expect(store.kind == .store && store.offset == 0x40 && store.data == 0x99)
            #expect(try image.load(at: 0x40, length: 8) == Self.pattern(0x40, 8))
            try emulation.reply(store)
        }
    }

    @Test("B3: if its vCPU's store is never replied to, it reads all-ones after the time limit, and is counted")
    func timeout() throws {
        try withShadow(vcpus: 2, timeout: .milliseconds(200)) { guest, emulation, _ in
            try guest.perform(.deviceStore(1, 8, 0x40))
            let store = try emulation.takeNow()
            #expect(try guest.perform(.deviceLoad(8, 0x40)) == .max)
            // At once, as nothing shows that the process lives.
            #expect(try guest.perform(.deviceLoad(4, 0x40)) == 0xffff_ffff)
            // A vCPU that waits for nothing does not need the process.
            #expect(try guest.perform(.deviceLoad(8, 0x40), on: 1) == Self.pattern(0x40, 8))
            let counters = try DebugCounters.ofNewestDevice()
            #expect(counters["timeouts"] == 1)
            #expect(counters["all_ones"] == 2)
            #expect(counters["shadow_hits"] == 1)
            try emulation.acknowledge(store)
            #expect(try guest.perform(.deviceLoad(8, 0x40)) == Self.pattern(0x40, 8))
        }
    }

    @Test("O4: with the map gone while it waits for its stores, the load is forwarded")
    func mapGoneMeanwhile() throws {
        try withShadow { guest, emulation, image in
            try guest.perform(.deviceStore(1, 8, 0x40))
            let load = try guest.begin(.deviceLoad(8, 0x40))
            try guest.expectWaiting(load)
            try emulation.setShadowMap(ShadowMap(imageSize: image.size))
            try emulation.acknowledge(try emulation.take(exactly: 1))
            let request = try emulation.take(exactly: 1)[0]
            #expect(request.kind == .load)
            try emulation.reply(request, 0x77)
            #expect(try guest.finish(load) == 0x77)
        }
    }

    @Test("O4: a store that the process gave up with the last close lets the load go, and it reads all-ones (F1)")
    func closedMeanwhile() throws {
        try ForwardedGuest.run { guest in
            let emulation = try guest.control.makeEmulationDescriptor()
            let image = try emulation.makeShadow(pages: 1)
            try emulation.setShadowMap(imageSize: image.size, .whole(0, 0x1000))
            try guest.perform(.deviceStore(1, 8, 0x40))
            let load = try guest.begin(.deviceLoad(8, 0x40))
            try guest.expectWaiting(load)
            close(emulation)
            #expect(try guest.finish(load) == .max)
        }
    }

    // MARK: While the guest loads

    @Test("O4: a counter of 8 bytes that is counted up meanwhile is never torn, nor goes back, on 2 vCPUs")
    func neverTorn() throws {
        try ModuleUnderTest.load()
        var rounds = 0
        // Whether this thread and the vCPUs run at the same time is the scheduler's choice.
        repeat {
            rounds += 1
            let loaded = try loadCountedUp(vcpus: 2, count: 4000)
            for values in loaded {
                try #require(values.count == 4000)
                try #require(values.first { $0 != Self.halves($0 >> 32) } == nil)
                try #require(zip(values, values.dropFirst()).allSatisfy { $0 <= $1 })
            }
            if loaded.allSatisfy({ Set($0).count > 1 }) { return }
        } while rounds < 20
        Issue.record("it did not change meanwhile, in \(rounds) rounds")
    }

    /// A value whose two halves belong together.
    private static func halves(_ number: UInt64) -> UInt64 { number << 32 | ~number & 0xffff_ffff }

    /// What each vCPU loads from the image while this thread counts up in it.
    private func loadCountedUp(vcpus: Int, count: Int) throws -> [[UInt64]] {
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: vcpus, capacity: count)
        let control = try ControlDescriptor(in: guest.machine)
        try control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0x1000))
        let emulation = try control.makeEmulationDescriptor(nonBlocking: true)
        let image = Box(try emulation.makeShadow(pages: 1))
        try image.value.store(Self.halves(0), at: 8, length: 8)
        try emulation.setShadowMap(imageSize: 4096, .whole(0, 0x1000))
        let programs = try (0..<UInt32(vcpus)).map {
            try guest.start(.loadLoop(.eight), .init(target: ForwardedGuest.base + 8, count: count), on: $0)
        }
        var number: UInt64 = 0
        while !programs.allSatisfy(\.hasEnded) {
            number += 1
            try image.value.store(Self.halves(number), at: 8, length: 8)
        }
        let loaded = try programs.map { try $0.join().values }
        #expect(throws: Errno.resourceTemporarilyUnavailable) { try emulation.takeNow() }
        return loaded
    }

    @Test("SHADOW_CTRL: a map is replaced as a whole while 2 vCPUs load: each load is answered by the old or the new")
    func replacedWhileLoading() throws {
        try ModuleUnderTest.load()
        let answers: [UInt64] = [0x1111_1111_1111_1111, 0x2222_2222_2222_2222, 0x3333_3333_3333_3333]
        var (seen, rounds) = (Set<UInt64>(), 0)
        // Which maps the vCPUs happen to load under is the scheduler's choice.
        while seen.count < answers.count, rounds < 20 {
            let loaded = try loadUnderChangingMaps(answers, vcpus: 2, count: 2000)
            #expect(loaded.count == 2 * 2000)
            try #require(loaded.allSatisfy(answers.contains))
            seen.formUnion(loaded)
            rounds += 1
        }
        #expect(seen.count == answers.count, "after \(rounds) rounds")
    }

    /// What vCPUs load that are answered from one place of the image, from another, or by this thread.
    private func loadUnderChangingMaps(_ answers: [UInt64], vcpus: Int, count: Int) throws -> [UInt64] {
        let guest = try GuestMachine(in: try KVMSystem().makeVirtualMachine(), vcpus: vcpus, capacity: count)
        let control = try ControlDescriptor(in: guest.machine)
        try control.setRange(0, to: GuestRange(.memory, at: ForwardedGuest.base, length: 0x1000))
        let emulation = try control.makeEmulationDescriptor(nonBlocking: true)
        let image = try emulation.makeShadow(pages: 2)
        try image.store(answers[0], at: 0x100, length: 8)
        try image.store(answers[1], at: 0x1f00, length: 8)
        let programs = try (0..<UInt32(vcpus)).map {
            try guest.start(.loadLoop(.eight), .init(target: ForwardedGuest.base, count: count), on: $0)
        }
        var replacements = 0
        while !programs.allSatisfy(\.hasEnded) {
            switch replacements % 4 {
            case 0: try emulation.setShadowMap(imageSize: image.size, .part(0, 0, 8, at: 0x100))
            case 1: try emulation.setShadowMap(imageSize: image.size, .part(0, 0, 8, at: 0x1f00), .whole(5, 0x1000))
            case 2: try emulation.setShadowMap(imageSize: image.size, .part(0, 0, 4), .part(0, 4, 4))
            default: try emulation.setShadowMap(ShadowMap(imageSize: image.size))
            }
            replacements += 1
            if let requests = try? emulation.takeNow() {
                for request in requests { try emulation.reply(request, answers[2]) }
            }
        }
        return try programs.flatMap { try $0.join().values }
    }

    // MARK: Ends

    @Test("The last close empties the map and keeps the image; a copy of the descriptor keeps both")
    func closing() throws {
        try ForwardedGuest.run { guest in
            let first = try guest.control.makeEmulationDescriptor()
            let image = try first.makeShadow(pages: 1)
            try image.store(0xcafe, at: 0, length: 8)
            try first.setShadowMap(imageSize: 4096, .whole(0, 0x1000))
            let copy = try first.duplicate()
            close(first)
            #expect(try guest.perform(.deviceLoad()) == 0xcafe)
            close(copy)
            #expect(try guest.perform(.deviceLoad()) == 0xffff_ffff)

            let second = try guest.control.makeEmulationDescriptor()
            #expect(try second.information().shadowSize == 4096)
            let load = try guest.begin(.deviceLoad())
            try second.reply(try second.take(exactly: 1)[0], 5)
            #expect(try guest.finish(load) == 5)
            // What the first process left is still there, and a mapping of the image is one of the same memory.
            let again = try second.mapShadowImage(size: 4096)
            try image.store(0xbeef, at: 8, length: 8)
            #expect(try again.load(at: 0, length: 8) == 0xcafe)
            #expect(try again.load(at: 8, length: 8) == 0xbeef)
            try second.setShadowMap(imageSize: 4096, .whole(0, 0x1000))
            #expect(try guest.perform(.deviceLoad(8, 8)) == 0xbeef)
        }
    }

    @Test("A mapping does not keep the emulation descriptor open: the next one can be made")
    func mappingIsNoDescriptor() throws {
        try ForwardedGuest.run { guest in
            let first = try guest.control.makeEmulationDescriptor()
            let image = try first.makeShadow(pages: 1)
            close(first)
            let second = try guest.control.makeEmulationDescriptor()
            try second.setShadowMap(imageSize: image.size, .whole(0, 0x1000))
            try image.store(8, at: 0, length: 1)
            #expect(try guest.perform(.deviceLoad(1)) == 8)
        }
    }

    @Test("A mapping survives descriptor and VM, and rmmod is busy until it is gone")
    func mappingOutlives() throws {
        try ModuleUnderTest.load()
        let image = try Self.makeAndDropMachine()
        #expect(try image.load(at: 4088, length: 8) == 0x1234)
        try image.store(0x5678, at: 0, length: 8)
        #expect(try image.load(at: 0, length: 8) == 0x5678)
        let error = #expect(throws: ModuleError.self) { try ModuleUnderTest.unload() }
        #expect(error?.errno == .resourceBusy)
        close(image)
        #expect(eventually { (try? ModuleUnderTest.unload()) != nil })
    }

    /// Makes a device with a shadow image, and ends all but a mapping of that.
    private static func makeAndDropMachine() throws -> ShadowImage {
        let control = try ControlDescriptor(in: try KVMSystem().makeVirtualMachine())
        let emulation = try control.makeEmulationDescriptor()
        let image = try emulation.makeShadow(pages: 1)
        try image.store(0x1234, at: 4088, length: 8)
        try emulation.setShadowMap(imageSize: 4096, .whole(0, 0x1000))
        return image
    }
}

extension EmulationDescriptor {
    /// Makes the image, and maps it.
    func makeShadow(pages: Int) throws(ForwardingError) -> ShadowImage {
        try setShadowSize(UInt64(4096 * pages))
        return try mapShadowImage(size: 4096 * pages)
    }

    /// Replaces the map.
    func setShadowMap(imageSize: Int, _ entries: ShadowMap.Entry...) throws {
        var map = ShadowMap(imageSize: imageSize)
        for entry in entries { try map.add(entry) }
        try setShadowMap(map)
    }
}

extension ShadowMap.Entry {
    /// The beginning of a range.
    static func whole(_ range: UInt32, _ length: UInt64, at imageOffset: UInt64 = 0) -> Self {
        part(range, 0, length, at: imageOffset)
    }

    /// Part of a range.
    static func part(
        _ range: UInt32, _ offset: UInt64, _ length: UInt64, at imageOffset: UInt64 = 0,
        widths: ShadowMap.Widths = .all
    ) -> Self {
        Self(rangeID: range, offset: offset, length: length, imageOffset: imageOffset, widths: widths)
    }
}
