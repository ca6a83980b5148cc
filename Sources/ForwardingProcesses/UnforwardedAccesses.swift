// SPDX-License-Identifier: Apache-2.0
//
// Accesses to the device that come to the VMM, since nobody emulates it and the policy is EXIT.

import GuestPrograms
import KVM
import Synchronization

/// Answers what nobody else does as a device does that was pulled out, and counts.
final class UnforwardedAccesses: Sendable {
    private let counts = Mutex(RequestCounts())

    /// How many there were so far.
    var count: RequestCounts { counts.withLock { $0 } }

    /// Gives all-ones for a load and drops a store; throws for what is no access.
    @Sendable func respond(to exit: VirtualCPU.Exit, of vcpu: inout VirtualCPU) throws {
        switch exit {
        case .mmioLoad:
            vcpu.setLoadedValue(.max)
            counts.withLock { $0.loads += 1 }
        case .mmioStore:
            counts.withLock { $0.stores += 1 }
        case .portLoad(let access):
            for position in 0..<access.count { vcpu.setPortValue(.max, at: position) }
            counts.withLock { $0.loads += access.count }
        case .portStore(let access):
            counts.withLock { $0.stores += access.count }
        default:
            try unexpectedExit(exit, &vcpu)
        }
    }
}
