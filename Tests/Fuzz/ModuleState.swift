// SPDX-License-Identifier: Apache-2.0
//
// What the module shows in sysfs and debugfs.

import Glibc
import SystemPackage

/// The loaded module.
enum ModuleState {
    private static let depth = "/sys/module/kvm_user/parameters/queue_depth"
    private static let counters = "/sys/kernel/debug/kvm_user"

    /// Runs `body` with a queue depth of its own for the devices that it makes.
    static func withQueueDepth(_ depth: Int, _ body: () throws -> Void) throws {
        let usual = try text(Self.depth)
        try write("\(depth)", to: Self.depth)
        defer { try? write(usual, to: Self.depth) }
        try body()
    }

    /// This process's devices, by the names of their files.
    static func devices() -> [String] {
        guard let directory = unsafe opendir(counters) else { return [] }
        defer { _ = unsafe closedir(directory) }
        var names: [String] = []
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: unsafe Array(bytes.prefix { $0 != 0 }), as: UTF8.self)
            }
            if name.hasPrefix("\(getpid())-") { names.append(name) }
        }
        return names
    }

    /// What a device has counted.
    static func counters(_ device: String) throws -> [String: Int] {
        var counters: [String: Int] = [:]
        for line in try text("\(self.counters)/\(device)").split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count == 2 { counters[String(words[0])] = Int(words[1]) }
        }
        return counters
    }

    /// Puts a line into the kernel's log, so that its report says which run it belongs to.
    static func log(_ line: String) {
        try? write("mmiofd-fuzz: \(line)\n", to: "/dev/kmsg")
    }

    private static func text(_ path: String) throws -> String {
        let file = try FileDescriptor.open(FilePath(path), .readOnly)
        defer { try? file.close() }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = try unsafe bytes.withUnsafeMutableBytes { unsafe try file.read(into: $0) }
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }

    private static func write(_ text: String, to path: String) throws {
        let file = try FileDescriptor.open(FilePath(path), .writeOnly)
        defer { try? file.close() }
        _ = try file.writeAll(text.utf8)
    }
}
