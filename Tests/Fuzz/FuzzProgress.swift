// SPDX-License-Identifier: Apache-2.0
//
// How far a run has come, for a watchdog and a last line.

import Synchronization

/// Counts operations; any thread may ask.
public final class FuzzProgress: Sendable {
    private let state = Mutex(State())

    private struct State {
        var actions = 0
        var position = -1
        var operations: [FuzzOperation.Kind: Int] = [:]
        var counters: [String: Int] = [:]
    }

    /// Begins at nothing.
    public init() {}

    func note(_ position: Int, _ operation: FuzzOperation?) {
        state.withLock { state in
            state.actions += 1
            state.position = position
            if let operation { state.operations[operation.kind, default: 0] += 1 }
        }
    }

    func add(_ counters: [String: Int]) {
        state.withLock { $0.counters.merge(counters) { $0 + $1 } }
    }

    func count() { state.withLock { $0.actions += 1 } }

    /// Grows with everything that is done.
    public var actions: Int { state.withLock { $0.actions } }
    /// The operation that was begun last; -1 at the end of a run.
    public var position: Int { state.withLock { $0.position } }
    /// What the devices of all runs have counted, by the names that the kernel has for it.
    public var counters: [String: Int] { state.withLock { $0.counters } }
    /// How many operations of each kind have been done.
    public var operations: [FuzzOperation.Kind: Int] { state.withLock { $0.operations } }
}

/// What a driver hides from the model: the model has to notice.
public enum FuzzTampering: String, CaseIterable, Sendable {
    /// A store is read, and the model is not told.
    case lostStore
    /// Two stores of a vCPU change places.
    case swappedOrder
    /// A store comes once more.
    case doubledStore
    /// A load's reply is another one than the model is told.
    case wrongValue
    /// A store's reply is kept back, and the model told that it is given.
    case lostReply
    /// A reply in the ring is none, and the model is told it is right.
    case lostRingReply
    /// The model is told that the kernel has looked at a reply too many.
    case wrongRingCount
}
