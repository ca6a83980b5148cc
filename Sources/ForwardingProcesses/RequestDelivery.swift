// SPDX-License-Identifier: Apache-2.0
//
// How requests come to an emulation process.

/// By which of the module's ways a device's requests come, and when a thread is woken for them.
public struct RequestDelivery: Hashable, Sendable {
    /// Whether loads of the device's shadow registers may be answered without a request.
    public var usesShadow: Bool
    /// Whether requests come in a ring in shared memory; for one thread.
    public var usesRing: Bool
    /// Whether a thread is woken once for several stores; nil: for each.
    public var coalescing: Coalescing?

    /// When a thread is woken for posted stores.
    public struct Coalescing: Hashable, Sendable {
        /// So many wake it at once; at least 1.
        public var stores: UInt32
        /// How long a store may be held back; up to 1 s.
        public var time: Duration

        /// Takes the two.
        public init(stores: UInt32, time: Duration) {
            self.stores = stores
            self.time = time
        }
    }

    /// Requests by system calls, a wake-up for each, unless said otherwise.
    public init(usesShadow: Bool = true, usesRing: Bool = false, coalescing: Coalescing? = nil) {
        self.usesShadow = usesShadow
        self.usesRing = usesRing
        self.coalescing = coalescing
    }
}
