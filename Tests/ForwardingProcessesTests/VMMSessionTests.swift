// SPDX-License-Identifier: Apache-2.0
//
// Which programs can run where, and the model that says what they must load.

import DeviceEmulation
import GuestPrograms
import MMIOForwarding
import ReferenceDevices
import Testing

@testable import ForwardingProcesses

@Suite("Placing devices and programs") struct DevicePlacementTests {
    private let scratch = ReferenceDevice.named("scratch")!
    private let uart = ReferenceDevice.named("uart16550a")!

    @Test("No two ranges on a bus overlap, and no two vCPUs share memory", arguments: [1, 2, 3, 7, 48])
    func apart(vcpus: Int) throws {
        let placement = try DevicePlacement(scratch, vcpus: vcpus)
        for bus in [GuestRange.Bus.memory, .ports] {
            let ranges = placement.ranges.map(\.range).filter { $0.bus == bus }.sorted { $0.address < $1.address }
            for (one, next) in zip(ranges, ranges.dropFirst()) { #expect(one.address + one.length <= next.address) }
        }
        let parts = (0..<UInt32(vcpus)).map { placement.part(of: $0) }
        #expect(parts.allSatisfy { $0.lowerBound >= 0x400 && $0.upperBound <= 0x1000 && $0.count >= 64 })
        for (one, next) in zip(parts, parts.dropFirst()) { #expect(one.upperBound <= next.lowerBound) }
        #expect(Set(placement.ranges.map(\.id)).count == placement.ranges.count)
    }

    @Test("Straddling accesses cross a page on every vCPU, inside of the vCPU's memory", arguments: [1, 3, 48])
    func straddling(vcpus: Int) throws {
        let placement = try DevicePlacement(scratch, vcpus: vcpus)
        for vcpu in 0..<UInt32(vcpus) {
            let target = try placement.target(ProgramStep(.straddling, count: 1), seed: 1, vcpu: vcpu)
            #expect(target.arguments.target % 4096 == 0)
            #expect(placement.part(of: vcpu).contains(target.arguments.target - target.base))
        }
    }

    @Test("A device has memory for so many vCPUs and no more")
    func tooMany() {
        #expect(throws: ProgramError.tooManyVirtualCPUs(device: "scratch", most: 48)) {
            try DevicePlacement(scratch, vcpus: 49)
        }
        #expect(throws: ProgramError.tooManyVirtualCPUs(device: "scratch", most: 48)) {
            try DevicePlacement(scratch, vcpus: 0)
        }
        #expect(throws: ProgramError.tooManyVirtualCPUs(device: "uart16550a", most: 1)) {
            try DevicePlacement(uart, vcpus: 2)
        }
    }

    private func plan(_ device: ReferenceDevice, _ text: String, vcpus: Int = 1) throws {
        let step = try ProgramStep(parsing: text, count: 10)
        _ = try VMMSession(DevicePlacement(device, vcpus: vcpus), running: [step], seed: 1, timeout: nil)
    }

    @Test(
        "A string as long as the memory fits, a longer one does not",
        arguments: [("rep_stos_8:384", "rep_stos_8:385"), ("rep_movs_in_1:3072", "rep_movs_in_1:3073")])
    func strings(fits: String, longer: String) throws {
        try plan(scratch, fits)
        #expect(throws: ProgramError.self) { try plan(scratch, longer) }
        #expect(throws: ProgramError.self) { try plan(scratch, fits, vcpus: 2) }
    }

    @Test("The UART takes bytes on its ports alone", arguments: ["mixed", "load_1", "out_2", "in_4", "straddle"])
    func uartPrograms(text: String) throws {
        try plan(uart, "out_1")
        try plan(uart, "in_1")
        #expect(throws: ProgramError.self) { try plan(uart, text) }
    }
}

@Suite("Model of a device") struct DeviceModelTests {
    @Test("A load gives what was stored, byte by byte, across the end of a page as well")
    func memory() {
        var model = DeviceModel(memory: 0x400..<0x1000)
        let base: UInt64 = 0x1800 - 0x800
        #expect(model.perform(.store(0x1122_3344_5566_7788, 8, at: base + 0xffd - 0x400), base: base) == nil)
        #expect(model.perform(.load(8, at: base + 0xffd - 0x400), base: base) == 0x1122_3344_5566_7788)
        #expect(model.perform(.load(1, at: base + 0xffe - 0x400), base: base) == 0x77)
        #expect(model.perform(.load(16, at: base + 0x500), base: base) == 0)
    }

    @Test("A page-crossing store is two requests, and as many stores as naturally aligned parts")
    func parts() {
        var model = DeviceModel(memory: 0x400..<0x1000)
        // Offset 0x800 is at 0x2000: 3 bytes from 0x7fd, 5 from 0x800.
        _ = model.perform(.store(0x0807_0605_0403_0201, 8, at: 0x1ffd), base: 0x1800)
        #expect(model.requests.stores == 2)
        // 1 at 0x7fd, 2 at 0x7fe; 4 at 0x800, 1 at 0x804.
        #expect(model.storedParts == 4)
    }

    @Test("The checksum is the one that the device keeps")
    func checksum() throws {
        var model = DeviceModel(memory: 0x400..<0x1000)
        var device = Scratch()
        for value in 0..<20 as Range<UInt64> {
            _ = model.perform(.store(UInt128(value), 4, at: 0x1400 + 4 * value), base: 0x1000)
            try device.store(value, .init(0x400 + 4 * value, .four))
        }
        #expect(model.checksum == device.checksum)
        #expect(model.storedParts == device.stores)
    }
}
