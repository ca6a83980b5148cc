// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

let system: Target.Dependency = .product(name: "SystemPackage", package: "swift-system")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")

let package = Package(
    name: "mmiofd",
    products: [
        .library(name: "LinuxSystem", targets: ["LinuxSystem"]),
        .library(name: "KVM", targets: ["KVM"]),
        .library(name: "MMIOForwarding", targets: ["MMIOForwarding"]),
        .library(name: "DeviceEmulation", targets: ["DeviceEmulation"]),
        .library(name: "DeviceEmulationTesting", targets: ["DeviceEmulationTesting"]),
        .library(name: "ReferenceDevices", targets: ["ReferenceDevices"]),
        .library(name: "KernelModule", targets: ["KernelModule"]),
        .executable(name: "mmiofd", targets: ["mmiofd"]),
        .executable(name: "mmiofd-bench", targets: ["mmiofd-bench"]),
    ],
    dependencies: [
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
    ],
    targets: [
        // What the kernel says, in C.
        .target(name: "CLinuxSystem"),
        .target(name: "CKVM"),
        .target(name: "CGuestPrograms"),
        .target(name: "CKVMUser"),
        .systemLibrary(name: "Ckmod", pkgConfig: "libkmod", providers: [.apt(["libkmod-dev"])]),
        .systemLibrary(name: "Cudev", pkgConfig: "libudev", providers: [.apt(["libudev-dev"])]),

        // System calls and descriptors.
        .target(name: "LinuxSystem", dependencies: ["CLinuxSystem", system], swiftSettings: strict),

        // The two sides of a virtual machine.
        .target(name: "KVM", dependencies: ["CKVM", "LinuxSystem", system], swiftSettings: strict),
        .target(
            name: "MMIOForwarding", dependencies: ["CKVMUser", "KVM", "LinuxSystem", system],
            swiftSettings: strict),
        .target(
            name: "GuestPrograms", dependencies: ["CGuestPrograms", "KVM", "LinuxSystem", system], swiftSettings: strict
        ),

        // Devices.
        .target(
            name: "DeviceEmulation", dependencies: ["MMIOForwarding", "LinuxSystem", logging, system],
            swiftSettings: strict),
        .target(
            name: "DeviceEmulationTesting", dependencies: ["DeviceEmulation", "MMIOForwarding", "LinuxSystem", system],
            swiftSettings: strict),
        .target(name: "ReferenceDevices", dependencies: ["DeviceEmulation"], swiftSettings: strict),

        // The two processes of the command line.
        .target(
            name: "ForwardingProcesses",
            dependencies: [
                "KVM", "MMIOForwarding", "GuestPrograms", "DeviceEmulation", "ReferenceDevices", "LinuxSystem", logging,
                system,
            ],
            swiftSettings: strict),

        // The machine that it runs on.
        .target(
            name: "KernelModule", dependencies: ["CKVM", "CLinuxSystem", "Ckmod", "Cudev", "LinuxSystem", system],
            swiftSettings: strict),
        .target(
            name: "Observability", dependencies: ["KernelModule", "LinuxSystem", "TextTable", system],
            swiftSettings: strict),
        .target(name: "Lab", dependencies: ["LinuxSystem", system], swiftSettings: strict),
        .target(name: "TextTable", swiftSettings: strict),

        // What the benchmark measured, for people.
        .target(
            name: "BenchmarkReport", dependencies: ["TextTable", system], path: "Benchmarks/BenchmarkReport",
            resources: [.embedInCode("report.html")], swiftSettings: strict),

        // What a larger machine would need, simulated from what was counted.
        .target(
            name: "Capacity", dependencies: ["BenchmarkReport", "TextTable", "SeededRandom"],
            path: "Benchmarks/Capacity", swiftSettings: strict),

        .target(name: "JSONText", swiftSettings: strict),
        .executableTarget(
            name: "mmiofd",
            dependencies: [
                "KVM", "MMIOForwarding", "DeviceEmulation", "ReferenceDevices", "GuestPrograms", "KernelModule",
                "Observability", "Lab", "ForwardingProcesses", "BenchmarkReport", "Capacity", "JSONText",
                "TextTable", "LinuxSystem", logging, system,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),

        // The device of README, as it stands there.
        .executableTarget(
            name: "Doorbell", dependencies: ["DeviceEmulation", "LinuxSystem", "MMIOForwarding"],
            path: "Examples/Doorbell", swiftSettings: [.swiftLanguageMode(.v6)]),

        // The load generator.
        .target(name: "CBenchmark", dependencies: ["CKVMUser"], path: "Benchmarks/CBenchmark"),
        .target(
            name: "Benchmark",
            dependencies: [
                "CBenchmark", "KVM", "MMIOForwarding", "GuestPrograms", "LinuxSystem", "JSONText", system,
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ],
            path: "Benchmarks/Benchmark", swiftSettings: strict),
        .executableTarget(
            name: "mmiofd-bench",
            dependencies: [
                "Benchmark", "GuestPrograms", "Lab", "LinuxSystem", system,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Benchmarks/BenchmarkRunner", swiftSettings: strict),

        .target(name: "SeededRandom", path: "Tests/SeededRandom", swiftSettings: strict),
        .testTarget(name: "LinuxSystemTests", dependencies: ["LinuxSystem", system], swiftSettings: strict),
        .testTarget(
            name: "KVMTests",
            dependencies: ["KVM", "GuestPrograms", "CKVM", "Fuzzing", "SeededRandom", "LinuxSystem", system],
            swiftSettings: strict),
        .testTarget(
            name: "MMIOForwardingTests",
            dependencies: ["MMIOForwarding", "CKVMUser", "Fuzzing", "SeededRandom", "LinuxSystem", system],
            swiftSettings: strict),
        .testTarget(
            name: "DeviceEmulationTests",
            dependencies: [
                "DeviceEmulation", "DeviceEmulationTesting", "MMIOForwarding", "Fuzzing", "SeededRandom", "LinuxSystem",
                system,
            ],
            swiftSettings: strict),
        .testTarget(
            name: "ReferenceDevicesTests",
            dependencies: [
                "ReferenceDevices", "DeviceEmulation", "DeviceEmulationTesting", "MMIOForwarding", "Fuzzing",
                "SeededRandom",
            ],
            swiftSettings: strict),
        .testTarget(
            name: "KernelModuleTests",
            dependencies: ["KernelModule", "Fuzzing", "SeededRandom", "LinuxSystem", system],
            swiftSettings: strict),
        .testTarget(
            name: "ForwardingProcessesTests",
            dependencies: [
                "ForwardingProcesses", "GuestPrograms", "ReferenceDevices", "DeviceEmulation", "MMIOForwarding",
                "Fuzzing", "SeededRandom", "LinuxSystem", logging, system,
            ],
            swiftSettings: strict),
        .testTarget(
            name: "ObservabilityTests",
            dependencies: ["Observability", "KernelModule", "Fuzzing", "SeededRandom", "LinuxSystem", system],
            swiftSettings: strict),
        .testTarget(
            name: "BenchmarkTests",
            dependencies: [
                "Benchmark", "CBenchmark", "GuestPrograms", "JSONText", system,
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ],
            swiftSettings: strict),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "mmiofd", "BenchmarkReport", system, .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        .testTarget(name: "TextTableTests", dependencies: ["TextTable"], swiftSettings: strict),
        .testTarget(
            name: "BenchmarkReportTests", dependencies: ["BenchmarkReport", "Fuzzing", "SeededRandom", system],
            exclude: ["Fixtures"], swiftSettings: strict),
        .testTarget(
            name: "CapacityTests", dependencies: ["Capacity", "BenchmarkReport", "Fuzzing", "SeededRandom", system],
            swiftSettings: strict),
        .testTarget(name: "LabTests", dependencies: ["Lab", "Fuzzing", "SeededRandom"], swiftSettings: strict),
        // What a hostile kernel or process would give the tests above.
        .target(
            name: "Fuzzing", dependencies: ["SeededRandom", "MMIOForwarding", "LinuxSystem", system],
            path: "Tests/Fuzzing",
            swiftSettings: strict),
        // Runs in the lab, against the real module.
        .target(name: "CConformance", path: "Tests/CConformance"),
        // Random operations on both descriptors, and a model of what they may do; runs in the lab.
        .target(name: "CFuzz", path: "Tests/CFuzz"),
        .target(
            name: "Fuzz",
            dependencies: [
                "CFuzz", "CKVMUser", "KVM", "MMIOForwarding", "GuestPrograms", "LinuxSystem", "SeededRandom", system,
            ],
            path: "Tests/Fuzz", swiftSettings: strict),
        .testTarget(
            name: "FuzzTests", dependencies: ["Fuzz", "CKVMUser", "GuestPrograms"], swiftSettings: strict),
        .executableTarget(
            name: "mmiofd-fuzz",
            dependencies: [
                "Fuzz", "LinuxSystem", system, .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Tests/FuzzCommand", swiftSettings: strict),
        .executableTarget(
            name: "KillableEmulation", dependencies: ["CConformance", "CKVMUser"], path: "Tests/KillableEmulation"),
        .testTarget(
            name: "Conformance",
            dependencies: [
                "CConformance", "CKVM", "CKVMUser", "KVM", "MMIOForwarding", "DeviceEmulation", "ReferenceDevices",
                "GuestPrograms", "KernelModule", "LinuxSystem", "SeededRandom", system,
            ],
            swiftSettings: strict),
    ]
)
