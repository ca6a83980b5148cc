// SPDX-License-Identifier: Apache-2.0
//
// Why a device refuses an access.

/// Why an ``MMIODevice`` refuses an access.
///
/// The guest is told what a bus tells it: a refused load reads all-ones, a refused store is dropped. The server counts
/// each in ``ServerCounters``.
public enum AccessFault: Error, Sendable, Hashable, CaseIterable {
    /// There is nothing at this offset, or no such range.
    case noRegister
    /// There is a register, but not one of this width.
    case unsupportedWidth
    /// A store to a register that can only be loaded.
    case readOnly
    /// A load from a register that can only be stored to.
    case writeOnly
}
