// SPDX-License-Identifier: Apache-2.0
//
// The gate that a pause closes.

import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import ForwardingProcesses

@Suite("Pause gate") struct PauseGateTests {
    private let gate: PauseGate

    init() throws {
        gate = try PauseGate()
    }

    /// Whether the gate says that it is closed and nobody is inside.
    private var isEmptied: Bool {
        var entry = pollfd(fd: gate.descriptor, events: CShort(POLLIN), revents: 0)
        return unsafe poll(&entry, 1, 0) == 1
    }

    @Test("It tells that nobody is inside while it is closed, and only then")
    func emptied() {
        #expect(!isEmptied)
        gate.enter()
        gate.close()
        #expect(!isEmptied)
        gate.leave()
        #expect(isEmptied)
        gate.open()
        #expect(!isEmptied)
        gate.close()
        gate.close()
        #expect(isEmptied)
        gate.open()
        #expect(!isEmptied)
    }

    @Test("It keeps threads out until it is opened, round after round")
    func keepsOut() throws {
        let entries = Entries()
        gate.close()
        let gate = self.gate
        for _ in 0..<4 {
            try NativeThread {
                for _ in 0..<100 {
                    gate.enter()
                    entries.count.add(1, ordering: .relaxed)
                    gate.leave()
                }
            }.detach()
        }
        for _ in 0..<50 {
            while !isEmptied { usleep(100) }
            let before = entries.count.load(ordering: .relaxed)
            sched_yield()
            #expect(entries.count.load(ordering: .relaxed) == before)
            gate.open()
            gate.close()
        }
        gate.open()
        while entries.count.load(ordering: .relaxed) < 400 { usleep(100) }
    }

    private final class Entries: Sendable {
        let count = Atomic(0)
    }
}
