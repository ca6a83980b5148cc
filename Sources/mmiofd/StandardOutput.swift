// SPDX-License-Identifier: Apache-2.0
//
// Standard output, unbuffered: whoever reads along sees each line at once.

import Glibc
import SystemPackage

enum StandardOutput {
    /// Writes all of the text.
    ///
    /// - Returns: whether anybody takes it.
    static func write(_ text: String) -> Bool {
        (try? FileDescriptor.standardOutput.writeAll(text.utf8)) != nil
    }

    /// Columns and rows of the terminal that it is, nil if it is none. C: `TIOCGWINSZ`.
    static var terminalSize: (columns: Int, rows: Int)? {
        var size = winsize()
        guard isatty(STDOUT_FILENO) == 1 else { return nil }
        guard unsafe ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else {
            // A terminal that does not say.
            return (80, 24)
        }
        return (Int(size.ws_col), Int(size.ws_row))
    }
}
