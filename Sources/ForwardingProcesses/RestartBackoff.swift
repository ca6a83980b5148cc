// SPDX-License-Identifier: Apache-2.0
//
// How soon a process that died is replaced.

/// At once if it had been of use, ever later if not, and at last never.
struct RestartBackoff {
    /// So many useless processes in a row, and there is not another one.
    static let limit = 8
    /// One that lived this long was of use, even if no guest asked for anything.
    static let lasting = Duration.seconds(10)

    private var useless = 0

    /// How long to wait before the next start.
    ///
    /// - Parameters:
    ///   - served: whether the process that died had served a request.
    ///   - lifetime: how long it had lived.
    /// - Returns: 20 ms after the first useless one, and twice as long after each further one; nil to give up.
    mutating func delay(served: Bool, lifetime: Duration) -> Duration? {
        guard !served && lifetime < Self.lasting else {
            useless = 0
            return .zero
        }
        useless += 1
        return useless < Self.limit ? .milliseconds(10 << useless) : nil
    }
}
