// SPDX-License-Identifier: Apache-2.0
//
// vCPUs that a signal has taken out of the guest, and that stay out until a test lets them in.

import Glibc
import GuestPrograms
import KVM
import Synchronization

/// Keeps vCPUs out of the guest from a signal on, and knows what they were in the middle of.
final class SignalHold: Sendable {
    /// A vCPU that is out.
    struct Held: Equatable {
        /// The access that is not complete, if there is one.
        let parked: VirtualCPU.Exit?
    }

    private let state = Mutex<(held: [UInt32: Held], isOver: Bool)>(([:], false))

    /// For `ForwardedGuest` and programs whose accesses all go to devices.
    @Sendable func respond(_ exit: VirtualCPU.Exit, _ vcpu: inout VirtualCPU) throws {
        guard exit == .interrupted else { return try unexpectedExit(exit, &vcpu) }
        let (index, held) = (vcpu.id, Held(parked: vcpu.parkedAccess))
        state.withLock { if !$0.isOver { $0.held[index] = held } }
        while state.withLock({ $0.held[index] != nil }) { usleep(200) }
    }

    /// The vCPUs that are out now.
    var held: [UInt32: Held] { state.withLock { $0.held } }

    /// Lets all in again; the next signal takes them out as before.
    func release() {
        state.withLock { $0.held = [:] }
    }

    /// Lets all in for good.
    func end() {
        state.withLock { $0 = ([:], true) }
    }
}
