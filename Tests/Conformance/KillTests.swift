// SPDX-License-Identifier: Apache-2.0
//
// The rule B2: a VMM that is killed dies at once, whatever its vCPU waits for in the module.

import Glibc
import LinuxSystem
import MMIOForwarding
import SystemPackage
import Testing

@Suite("Killed VMM")
struct KillTests {
    /// What a vCPU waits for in the module.
    enum Wait: String, CaseIterable {
        case reply = "load_4"
        case space = "store_4"
        case stores = "pair_4"
    }

    @Test("B2: a vCPU thread killed in each wait ends at once", arguments: Wait.allCases)
    func killed(wait: Wait) throws {
        try ModuleUnderTest.withQueueDepth(4) {
            let socketPath = FilePath("/tmp/kill-\(wait).sock")
            let vmm = try RunningCommand(arguments: [
                "vmm", "--socket", socketPath.string, "--program", wait.rawValue, "--count", "100", "--timeout", "none",
            ])
            // To start a process takes long where a checked kernel is emulated.
            try #require(eventually(within: .seconds(120)) { unsafe access(socketPath.string, F_OK) == 0 })
            let handover = try Handover(receivingFrom: try UnixSocket(connectingTo: socketPath))
            switch wait {
            case .reply, .space: _ = try handover.emulation.take(exactly: 1)
            case .stores:
                // The load gets its reply, the store before it does not.
                let requests = try handover.emulation.take(exactly: 2)
                try handover.emulation.reply(requests[1], 1)
            }
            // Time enough to be asleep for good.
            usleep(500_000)
            #expect(!(try handover.emulation.poll(milliseconds: 0).contains(.machineGone)))
            vmm.signal(SIGKILL)
            #expect(try vmm.end(within: Effort.patience(.seconds(10))) == 128 + SIGKILL)
            // What it had posted is still there to be read, then the end.
            #expect(try eventually { try handover.emulation.poll(milliseconds: 0).contains(.machineGone) })
        }
    }
}
