// SPDX-License-Identifier: Apache-2.0
//
// Small things that several suites need.

import Glibc
import LinuxSystem
import MMIOForwarding
import SystemPackage

/// Ends a value's life here: closes a descriptor.
func close<Value: ~Copyable>(_ value: consuming Value) {}

/// Keeps a value that cannot be copied where only copyable ones go.
final class Box<Value: ~Copyable & Sendable>: Sendable {
    let value: Value

    init(_ value: consuming Value) {
        self.value = value
    }
}

/// A descriptor's flags. C: `fcntl(F_GETFD)`, `fcntl(F_GETFL)`.
struct DescriptorFlags {
    let closeOnExec: Bool
    let nonBlocking: Bool

    init(of descriptor: CInt) {
        closeOnExec = fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0
        nonBlocking = fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0
    }
}

/// What the module counts, from debugfs.
enum DebugCounters {
    private static let root = "/sys/kernel/debug/kvm_user"

    /// The devices of a process.
    private static func names(of process: Int32 = getpid()) -> [String] {
        guard let directory = unsafe opendir(root) else { return [] }
        defer { _ = unsafe closedir(directory) }
        var names: [String] = []
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: unsafe Array(bytes.prefix { $0 != 0 }), as: UTF8.self)
            }
            if name.hasPrefix("\(process)-") { names.append(name) }
        }
        // The number of the device decides, not its digits.
        return names.sorted { ($0.count, $0) < ($1.count, $1) }
    }

    /// How many devices this process has.
    static func deviceCount() -> Int {
        names().count
    }

    /// Where the counters of the device are that a process made last.
    static func pathOfNewestDevice(of process: Int32 = getpid()) -> String? {
        names(of: process).last.map { "\(root)/\($0)" }
    }

    /// The counters of the device that a process made last.
    static func ofNewestDevice(of process: Int32 = getpid()) throws -> [String: Int] {
        guard let path = pathOfNewestDevice(of: process) else { return [:] }
        var counters: [String: Int] = [:]
        for line in try textOfFile(path).split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count == 2 { counters[String(words[0])] = Int(words[1]) }
        }
        return counters
    }
}

/// What a small file of the kernel's says.
func textOfFile(_ path: String) throws -> String {
    let file = try FileDescriptor.open(FilePath(path), .readOnly)
    defer { try? file.close() }
    var (text, chunk) = ([UInt8](), [UInt8](repeating: 0, count: 4096))
    while true {
        let count = try unsafe chunk.withUnsafeMutableBytes { unsafe try file.read(into: $0) }
        if count == 0 { return String(decoding: text, as: UTF8.self) }
        text += chunk.prefix(count)
    }
}

/// How often tests repeat what one time would not show.
enum Effort {
    /// Percent of the full count, from MMIOFD_EFFORT: less where checkers make the kernel several times slower.
    private static let percent: Int = {
        guard let text = unsafe getenv("MMIOFD_EFFORT") else { return 100 }
        return min(max(Int(unsafe String(cString: text)) ?? 100, 1), 100)
    }()

    /// How long something may take that takes `limit` where nothing slows the kernel down.
    static func patience(_ limit: Duration) -> Duration {
        percent == 100 ? limit : limit * 10
    }

    /// That share of `count`, 1 at least.
    static func scaled(_ count: Int) -> Int {
        max(count * percent / 100, 1)
    }
}

/// Seconds since some moment, for limits and ratios.
func now() -> Duration {
    var time = timespec()
    _ = unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
}

/// The shortest of three times that something takes: a machine with much else to do only ever makes one longer.
func shortest(_ duration: () throws -> Duration) rethrows -> Duration {
    try min(duration(), duration(), duration())
}

/// Waits until `condition` holds; false if it does not within the limit.
func eventually(within limit: Duration = .seconds(20), _ condition: () throws -> Bool) rethrows -> Bool {
    let end = now() + limit
    while now() < end {
        if try condition() { return true }
        usleep(2000)
    }
    return try condition()
}
