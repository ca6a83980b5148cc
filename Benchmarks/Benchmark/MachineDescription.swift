// SPDX-License-Identifier: Apache-2.0
//
// Where it was measured: all that is needed to measure it again.

import Glibc
import JSONText
import LinuxSystem
import SystemPackage

/// The machine, its kernel and the module.
public struct MachineDescription: Sendable {
    /// The kernel's release.
    public let kernel: String
    /// The processor's name.
    public let cpu: String
    /// How many CPUs are online.
    public let cpus: Int
    /// What emulates the machine and how, if something does.
    public let emulator: String?
    /// The module's parameters.
    public let module: [String: String]
    /// What this program was built with.
    public let compiler: String

    /// Describes the machine that this runs on; what emulates it is known from MMIOFD_BENCH_EMULATOR alone.
    public init() {
        kernel = KernelFile("/proc/sys/kernel/osrelease").text() ?? "unknown"
        let name = KernelFile("/proc/cpuinfo").text()?.split(separator: "\n").first { $0.hasPrefix("model name") }
        cpu = name?.split(separator: ":").last.map { String($0.drop { $0 == " " }) } ?? "unknown"
        cpus = sysconf(CInt(_SC_NPROCESSORS_ONLN))
        emulator = unsafe getenv("MMIOFD_BENCH_EMULATOR").map { unsafe String(cString: $0) }
        module = Self.parameters(below: "/sys/module/kvm_user/parameters")
        compiler = Self.compilerVersion
    }

    private static func parameters(below path: String) -> [String: String] {
        var parameters: [String: String] = [:]
        guard let directory = unsafe opendir(path) else { return parameters }
        defer { unsafe closedir(directory) }
        while let entry = unsafe readdir(directory) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if let value = KernelFile("\(path)/\(name)").text(), !name.hasPrefix(".") { parameters[name] = value }
        }
        return parameters
    }

    private static var compilerVersion: String {
        #if compiler(>=6.4)
            "Swift 6.4 or later"
        #elseif compiler(>=6.3)
            "Swift 6.3"
        #else
            "Swift"
        #endif
    }

    var json: JSONValue {
        .object([
            "kernel": .string(kernel), "cpu": .string(cpu), "cpus": .integer(cpus), "emulator": JSONValue(emulator),
            "module": .dictionary(module.mapValues { .string($0) }), "compiler": .string(compiler),
        ])
    }
}
