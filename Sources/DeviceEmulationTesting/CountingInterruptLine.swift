// SPDX-License-Identifier: Apache-2.0
//
// An interrupt that only counts.

public import DeviceEmulation
import Synchronization

/// An interrupt line that counts how often it was signalled.
public final class CountingInterruptLine: InterruptLine {
    private let signals = Atomic(0)

    /// Makes a line that was never signalled.
    public init() {}

    /// How often it was signalled so far.
    public var count: Int { signals.load(ordering: .sequentiallyConsistent) }

    public func signal() {
        signals.wrappingAdd(1, ordering: .sequentiallyConsistent)
    }
}
