// SPDX-License-Identifier: Apache-2.0
//
// Standard output, unbuffered: whoever reads along sees each line at once.

import Glibc
import Synchronization
import SystemPackage

enum StandardOutput {
    /// Why something that was written is lost: the first error.
    private static let failure = Mutex<Errno?>(nil)

    /// Writes all of the text.
    ///
    /// - Returns: whether anybody takes it. If not, ``loss`` has the reason, unless it is a reader that has gone.
    static func write(_ text: String) -> Bool {
        do {
            try FileDescriptor.standardOutput.writeAll(text.utf8)
            return true
        } catch {
            let errno = error as? Errno ?? .ioError
            if errno != .brokenPipe { failure.withLock { $0 = $0 ?? errno } }
            return false
        }
    }

    /// Writes a line, or several.
    static func print(_ text: some CustomStringConvertible) {
        _ = write("\(text)\n")
    }

    /// Why not all that was written was taken; nil if it was.
    static var loss: Errno? { failure.withLock { $0 } }

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
