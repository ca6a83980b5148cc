// SPDX-License-Identifier: Apache-2.0
//
// Durations as numbers to print.

extension Duration {
    /// Whole nanoseconds; a duration beyond 292 years counts as very long.
    var wholeNanoseconds: Int {
        let (seconds, attoseconds) = components
        let (product, overflow) = Int(clamping: seconds).multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? .max : product.addingReportingOverflow(Int(clamping: attoseconds / 1_000_000_000)).partialValue
    }

    /// Milliseconds with one decimal.
    var formattedMilliseconds: String {
        let tenths = wholeNanoseconds / 100_000
        return "\(tenths / 10).\(abs(tenths % 10))"
    }
}
