// SPDX-License-Identifier: Apache-2.0
//
// What a guest leaves in its memory, and a kernel in the pages that it shares: any bytes, and nothing traps.

import CKVM
import Fuzzing
import LinuxSystem
import SeededRandom
import SystemPackage
import Testing

@testable import GuestPrograms
@testable import KVM

@Suite("Hostile guest memory", .timeLimit(.minutes(10)))
struct HostileGuestTests {
    private static func fill(_ memory: GuestMemory, using random: inout SeededGenerator) throws {
        // Numbers at an edge more often than others.
        for offset in stride(from: UInt64(0), to: UInt64(memory.count), by: 8) {
            let value: UInt64 =
                switch Int.random(in: 0..<4, using: &random) {
                case 0: .random(in: 0...600, using: &random)
                case 1: 0 &- .random(in: 0...16, using: &random)
                default: random.next()
                }
            try memory.store(value, at: memory.address + offset)
        }
    }

    @Test("Results of any bytes: no more values than there is room for", arguments: fuzzSeeds)
    func results(seed: UInt64) throws {
        announce(seed, of: "results")
        var random = SeededGenerator(seed: seed)
        let memory = try GuestMemory(at: 0, count: 8192)
        for _ in 0..<300 {
            try Self.fill(memory, using: &random)
            let results = try GuestResults(in: memory, at: 4096, capacity: 500)
            #expect(results.values.count <= 500)
            _ = GuestResults.checksum(of: results.values)
        }
    }

    @Test("A mailbox of any bytes is asked and read", arguments: fuzzSeeds)
    func mailbox(seed: UInt64) throws {
        announce(seed, of: "mailboxes")
        var random = SeededGenerator(seed: seed)
        let memory = try GuestMemory(at: 0x1000, count: 4096)
        let mailbox = GuestMailbox(memory: memory, address: 0x1000)
        for _ in 0..<300 {
            try Self.fill(memory, using: &random)
            let access = GuestAccess.store(
                UInt128(random.next()) << 64 | UInt128(random.next()), .random(in: 0...17, using: &random),
                at: random.next(), on: Bool.random(using: &random) ? .port : .memory)
            if let ticket = try? mailbox.post(access) { _ = try mailbox.isDone(ticket) }
            _ = try mailbox.loadedValue()
            _ = try? mailbox.perform(access, timeout: .zero)
        }
    }

    @Test("A mailbox that lies outside of the memory is an error", arguments: [0, 0xff8, 0x1ff8, 0x2000] as [UInt64])
    func outside(address: UInt64) throws {
        let mailbox = GuestMailbox(memory: try GuestMemory(at: 0x1000, count: 4096), address: address)
        #expect(throws: GuestMemory.Fault.self) {
            _ = try mailbox.post(.load(4, at: 0))
            _ = try mailbox.loadedValue()
        }
    }

    @Test("A run structure of any bytes is an exit that can be looked at and answered", arguments: fuzzSeeds)
    func runStructure(seed: UInt64) throws {
        announce(seed, of: "run structures")
        var random = SeededGenerator(seed: seed)
        let machine = VirtualMachine(
            adopting: try OwnedDescriptor.open("/dev/null", .readWrite), virtualCPUMappingSize: 12288)
        let run = RunStructure(try MemoryMapping(anonymous: 12288))
        var vcpu = VirtualCPU(
            adopting: try OwnedDescriptor.open("/dev/null", .readWrite), id: 0, index: 0, run: run, of: machine)
        for _ in 0..<2000 {
            for offset in 0..<256 {
                // SAFETY: the structure's first bytes lie in the mapping.
                unsafe run.bytes(at: UInt64(offset), count: 1)?.storeBytes(
                    of: UInt8.random(in: 0...255, using: &random), as: UInt8.self)
            }
            let reasons = [
                KVM_EXIT_MMIO, KVM_EXIT_IO, KVM_EXIT_HLT, KVM_EXIT_SYSTEM_EVENT, KVM_EXIT_FAIL_ENTRY,
                KVM_EXIT_INTERNAL_ERROR, Int32.random(in: .min...(.max), using: &random),
            ]
            unsafe run.run.pointee.exit_reason = UInt32(bitPattern: reasons.randomElement(using: &random) ?? 0)
            _ = vcpu.noteExit()
            vcpu.setLoadedValue(random.next())
            for position in [0, 1, Int.random(in: 0...Int(UInt32.max), using: &random), -1, .max] {
                vcpu.setPortValue(UInt32(truncatingIfNeeded: random.next()), at: position)
                _ = vcpu.portValue(at: position)
            }
        }
    }

    @Test("A ring of coalesced stores of any bytes gives stores of 8 bytes at most", arguments: fuzzSeeds)
    func coalescedRing(seed: UInt64) throws {
        announce(seed, of: "rings")
        var random = SeededGenerator(seed: seed)
        let machine = VirtualMachine(
            adopting: try OwnedDescriptor.open("/dev/null", .readWrite), virtualCPUMappingSize: 12288)
        let run = RunStructure(try MemoryMapping(anonymous: 12288))
        var vcpu = VirtualCPU(
            adopting: try OwnedDescriptor.open("/dev/null", .readWrite), id: 0, index: 0, run: run, of: machine)
        for _ in 0..<200 {
            for offset in 0..<4096 {
                // SAFETY: the ring's page lies in the mapping.
                unsafe run.coalescedRing?.storeBytes(
                    of: UInt8.random(in: 0...255, using: &random), toByteOffset: offset, as: UInt8.self)
            }
            for _ in 0..<8 {
                if let store = vcpu.takeCoalescedStore() { #expect((0...8).contains(store.access.length)) }
            }
        }
    }
}
