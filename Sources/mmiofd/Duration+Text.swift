// SPDX-License-Identifier: Apache-2.0
//
// Durations as numbers to print.

extension Duration {
    /// Whole nanoseconds; a duration beyond 292 years counts as very long.
    var wholeNanoseconds: Int {
        let (seconds, attoseconds) = components
        let (whole, isTooLong) = Int(clamping: seconds).multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, overflow) = whole.addingReportingOverflow(Int(clamping: attoseconds / 1_000_000_000))
        return isTooLong || overflow ? .max : sum
    }

    /// Milliseconds with one decimal.
    var formattedMilliseconds: String {
        let tenths = wholeNanoseconds / 100_000
        return "\(tenths / 10).\(abs(tenths % 10))"
    }
}
