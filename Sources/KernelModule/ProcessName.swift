// SPDX-License-Identifier: Apache-2.0
//
// The names that processes give themselves, made fit for a terminal.

extension SystemTree {
    /// The name of a process, at most 15 bytes, from /proc/PID/comm.
    ///
    /// A process may call itself anything: what a terminal would act on is replaced by `?`.
    ///
    /// - Returns: nil if there is no such process.
    public func command(of process: Int32) -> String? {
        (try? text("proc/\(process)/comm"))?.printable
    }
}

extension String {
    /// The text with `?` in the place of control characters and whatever else has no shape of its own.
    package var printable: String {
        if utf8.allSatisfy({ (0x20...0x7e).contains($0) }) { return self }
        var result = ""
        for scalar in unicodeScalars { result.unicodeScalars.append(scalar.isPrintable ? scalar : "?") }
        return result
    }
}

extension Unicode.Scalar {
    fileprivate var isPrintable: Bool {
        switch properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .surrogate, .unassigned: false
        default: true
        }
    }
}
