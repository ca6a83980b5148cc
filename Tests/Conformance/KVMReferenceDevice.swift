// SPDX-License-Identifier: Apache-2.0
//
// A device in the test's own process that answers KVM exits and compares each with the replay.

import GuestPrograms
import KVM
import Synchronization

/// Memory behind an MMIO window or a port, and what of it a program was expected to access next.
///
/// One for each vCPU: it checks every access as it comes, in order, fragment by fragment.
final class KVMReferenceDevice: Sendable {
    private struct State {
        var bytes: [UInt64: UInt8] = [:]
        var expected: [GuestAccess]
        var next = 0
        var portReads: UInt32 = 0
    }

    /// Something that the guest did and that the replay does not say.
    struct Mismatch: Error, CustomStringConvertible {
        let expected: GuestAccess?
        let seen: String
        let position: Int

        var description: String {
            "access \(position): expected \(expected.map { "\($0)" } ?? "none"), saw \(seen)"
        }
    }

    private let state: Mutex<State>

    init(_ expected: some Sequence<GuestAccess>) {
        state = Mutex(State(expected: expected.flatMap(\.fragments)))
    }

    /// How many fragments were expected and have not come.
    var missing: Int { state.withLock { $0.expected.count - $0.next } }

    /// Answers an exit, or throws if it is not what comes next.
    @Sendable func respond(_ exit: VirtualCPU.Exit, _ vcpu: inout VirtualCPU) throws {
        switch exit {
        case .mmioLoad(let access):
            try take(.load(access.length, at: access.address))
            vcpu.setLoadedValue(load(access.address, access.length))
        case .mmioStore(let access, let value):
            try take(.store(UInt128(value), access.length, at: access.address))
            store(value, access.address, access.length)
        case .portStore(let access):
            for position in 0..<access.count {
                let value = UInt128(vcpu.portValue(at: position))
                try take(.store(value, access.length, at: UInt64(access.port), on: .port))
            }
        case .portLoad(let access):
            for position in 0..<access.count {
                try take(.load(access.length, at: UInt64(access.port), on: .port))
                vcpu.setPortValue(Self.portValue(nextPortRead()), at: position)
            }
        default:
            throw UnexpectedExit(vcpu: vcpu.id, exit: exit)
        }
    }

    /// What the guest's loads must have given: computed from the accesses alone.
    static func loadedValues(_ accesses: some Sequence<GuestAccess>) -> [UInt64] {
        let model = KVMReferenceDevice([])
        var values: [UInt64] = []
        for access in accesses {
            switch (access.bus, access.kind) {
            case (.memory, .store):
                for part in access.fragments { model.store(UInt64(part.value), part.address, part.length) }
            case (.memory, .load):
                let halves = access.length == 16 ? 2 : 1
                for half in 0..<halves {
                    values.append(model.load(access.address + UInt64(8 * half), min(access.length, 8)))
                }
            case (.port, .load):
                values.append(UInt64(portValue(model.nextPortRead())) & (UInt64.max >> UInt64(64 - 8 * access.length)))
            case (.port, .store): break
            }
        }
        return values
    }

    private func take(_ seen: GuestAccess) throws {
        try state.withLock { state in
            let position = state.next
            let expected = position < state.expected.count ? state.expected[position] : nil
            guard expected == seen else {
                throw Mismatch(expected: expected, seen: "\(seen)", position: position)
            }
            state.next += 1
        }
    }

    /// The n-th value that the port gives: no two neighbours alike, in any width.
    private static func portValue(_ position: UInt32) -> UInt32 {
        (position &+ 1) &* 0x9e37_79b1
    }

    private func nextPortRead() -> UInt32 {
        state.withLock { state in
            defer { state.portReads += 1 }
            return state.portReads
        }
    }

    /// A byte that was never stored is the complement of its address.
    private func load(_ address: UInt64, _ length: Int) -> UInt64 {
        state.withLock { state in
            (0..<UInt64(length)).reduce(0) { value, position in
                let byte = state.bytes[address + position] ?? ~UInt8(truncatingIfNeeded: address + position)
                return value | UInt64(byte) << (8 * position)
            }
        }
    }

    private func store(_ value: UInt64, _ address: UInt64, _ length: Int) {
        state.withLock { state in
            for position in 0..<UInt64(length) {
                state.bytes[address + position] = UInt8(truncatingIfNeeded: value >> (8 * position))
            }
        }
    }
}
