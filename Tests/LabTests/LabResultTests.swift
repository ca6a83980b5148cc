// SPDX-License-Identifier: Apache-2.0
//
// What a run means, from what ended it and what its console said.

import Testing

@testable import Lab

@Suite("Results")
struct LabResultTests {
    private static let booted = "[    9.41] ordinary\r\n[   10.45] \(GuestScript.startMark)\r\n"

    private static func console(_ text: String) -> ConsoleLog {
        var console = ConsoleLog()
        console.append(text.utf8)
        console.finish()
        return console
    }

    @Test("A command's status is the run's", arguments: [0, 1, 7, 127, 255])
    func status(_ status: Int) {
        let console = Self.console(Self.booted + "[   12.0] \(GuestScript.endMark)\(status)\r\n[   12.1] reboot\r\n")
        let result = LabResult(.machineEnded, console: console)
        #expect(result == .exited(status))
        #expect(result.exitStatus == Int32(status))
    }

    @Test("A report fails the run whatever the command's status", arguments: [0, 7])
    func report(status: Int) {
        let text = Self.booted + "[ 11.0] BUG: KASAN: planted\r\n[ 12.0] \(GuestScript.endMark)\(status)\r\n"
        let result = LabResult(.machineEnded, console: Self.console(text))
        guard case .kernelReports(let reports) = result else {
            Issue.record("\(result)")
            return
        }
        #expect(reports.map(\.kind) == [.kasan])
        #expect(result.exitStatus == 120)
        #expect(result.description.contains("BUG: KASAN: planted"))
    }

    @Test("A report after the command's end fails the run too")
    func reportAfterEnd() {
        let text = Self.booted + "[ 12.0] \(GuestScript.endMark)0\r\n[ 12.1] WARNING: CPU: 0 PID: 1 at a.c:1\r\n"
        #expect(LabResult(.machineEnded, console: Self.console(text)).exitStatus == 120)
    }

    @Test("Only a boot that never reaches the command counts as stalled")
    func stalled() {
        let line = "[    3.2] virtme-ng-init: waiting for udev to settle"
        let (booting, booted) = (Self.console(line + "\r\n"), Self.console(Self.booted))
        #expect(LabResult(.timeLimitPassed, console: booting) == .bootStalled(console: [line]))
        #expect(LabResult(.timeLimitPassed, console: booted) == .timeLimitPassed)
        let ended = LabResult(.machineEnded, console: booting)
        #expect(ended == .machineEnded(commandStarted: false, console: [line]))
        #expect(ended.description.contains(line))
        #expect(LabResult(.machineEnded, console: booted).exitStatus == 122)
        let panicked = Self.console("[    3.2] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n")
        #expect(LabResult(.timeLimitPassed, console: panicked).exitStatus == 120)
    }

    @Test("A signal decides over all else")
    func interrupted() {
        let console = Self.console(Self.booted + "[ 11.0] BUG: KASAN: planted\r\n")
        let result = LabResult(.interrupted(signal: 15), console: console)
        #expect(result == .interrupted(signal: 15))
        #expect(result.exitStatus == 143)
    }

    @Test("No two ways to end badly share a status")
    func distinct() {
        let results: [LabResult] = [
            .kernelReports([]), .bootStalled(console: []), .machineEnded(commandStarted: true, console: []),
            .timeLimitPassed, .interrupted(signal: 2),
        ]
        #expect(Set(results.map(\.exitStatus)).count == results.count)
        #expect(results.allSatisfy { $0.exitStatus >= 120 })
    }
}

@Suite("Console")
struct ConsoleLogTests {
    @Test("Marks are seen however the bytes arrive", arguments: [1, 2, 7, 4096])
    func pieces(size: Int) {
        let text =
            "SeaBIOS\r\n[    1.0] a\r\n[   10.4] \(GuestScript.startMark)\r\n[ 11.0] \(GuestScript.endMark)3\r\nend"
        let bytes = Array(text.utf8)
        var console = ConsoleLog()
        for start in stride(from: 0, to: bytes.count, by: size) {
            console.append(bytes[start..<min(start + size, bytes.count)])
        }
        console.finish()
        #expect(console.started)
        #expect(console.status == 3)
        #expect(console.lines.count == 5)
        #expect(console.lines.last == "end")
    }

    @Test("A mark inside another line is none")
    func quoted() {
        var console = ConsoleLog()
        console.append("[    0.0] Command line: \(GuestScript.startMark)\n".utf8)
        #expect(!console.started)
    }

    @Test("Bytes that are no text do no harm")
    func garbage() {
        var console = ConsoleLog()
        console.append([0xff, 0xfe, 0x0a, 0x5b, 0x0a])
        #expect(console.lines.count == 2)
    }
}
