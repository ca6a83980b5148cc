// SPDX-License-Identifier: Apache-2.0
//
// A console's output as it comes, and what it says about the command.

/// The VM's console: bytes in, lines and the command's progress out.
struct ConsoleLog {
    /// The lines so far, the one that is not finished last.
    private(set) var lines: [String] = []
    /// Whether the command has started.
    private(set) var started = false
    /// The command's exit status, once it has ended.
    private(set) var status: Int?
    private var unfinished: [UInt8] = []

    /// Takes what the console printed.
    mutating func append(_ bytes: some Sequence<UInt8>) {
        for byte in bytes {
            if byte == UInt8(ascii: "\n") {
                finishLine()
            } else {
                unfinished.append(byte)
            }
        }
    }

    /// Takes the end of the output: a last line without its end is a line too.
    mutating func finish() {
        if !unfinished.isEmpty { finishLine() }
    }

    private mutating func finishLine() {
        if unfinished.last == UInt8(ascii: "\r") { unfinished.removeLast() }
        let line = String(decoding: unfinished, as: UTF8.self)
        unfinished.removeAll(keepingCapacity: true)
        lines.append(line)
        let message = KernelReport.message(of: line)
        if message == GuestScript.startMark { started = true }
        if message.hasPrefix(GuestScript.endMark) { status = Int(message.dropFirst(GuestScript.endMark.count)) }
    }
}
