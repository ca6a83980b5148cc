// SPDX-License-Identifier: Apache-2.0
//
// mmiofd-fuzz: random operations on both descriptors, in the lab, against the loaded module.

import ArgumentParser
import Fuzz
import Glibc
import LinuxSystem
import SystemPackage

@main struct FuzzCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mmiofd-fuzz",
        abstract: "Do random operations on devices of the loaded module, and compare with a model.",
        discussion: """
            A seed decides what is done. Each case is a machine of its own: vCPUs, devices, operations, its end. When \
            one fails, the operations that it needs to fail are looked for and listed.

            Exit status: 0 if the module did as the model says, 1 if not, 3 if an operation did not come to its end.
            """,
        subcommands: [Run.self, Cases.self, One.self], defaultSubcommand: Run.self)
}

/// What all of them take.
struct CaseOptions: ParsableArguments {
    @Option(help: "What decides everything.")
    var seed: UInt64 = 1

    @Option(help: "How many operations a case has.")
    var length = 300

    @Option(help: "How many seconds an operation may take before it counts as a hang.")
    var patience = 60
}

/// Cases, and if one fails its shortest form.
struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run cases, and shorten one that fails.")

    @OptionGroup var options: CaseOptions

    @Option(help: "For how many seconds to run cases.")
    var duration = 60

    @Option(help: "How many seconds to spend on shortening.")
    var shrinking = 240

    func run() throws {
        let file = FilePath("/tmp/mmiofd-fuzz.\(getpid())")
        defer { _ = unsafe unlink(file.string) }
        let status = try Self.start(
            ["cases", "--duration", "\(duration)", "--result", file.string] + shared(options.seed))
        guard status != 0 else { return }
        guard let failure = Failure.read(file) else {
            print("fuzz: the cases ended with status \(status), and none had begun")
            throw ExitCode(status)
        }
        report(failure)
        throw ExitCode(status == 3 ? 3 : 1)
    }

    private func shared(_ seed: UInt64) -> [String] {
        ["--seed", "\(seed)", "--length", "\(options.length)", "--patience", "\(options.patience)"]
    }

    /// Looks for the shortest form, and prints it.
    private func report(_ failure: Failure) {
        let plan = FuzzCase(seed: failure.seed, length: options.length)
        let end = ContinuousClock.now + .seconds(shrinking)
        let reached = failure.position < 0 ? plan.operations.count : min(failure.position + 1, plan.operations.count)
        print("fuzz: case \(failure.seed) fails; shortening \(reached) operations for up to \(shrinking) s")
        let fails = { (positions: [Int]) -> Bool in
            let keep = positions.map(String.init).joined(separator: ",")
            let status = try? Self.start(["one", "--quiet", "--times", "3", "--keep", keep] + shared(failure.seed))
            return status != 0
        }
        let all = Array(0..<reached)
        guard fails(all) || fails(all) else {
            print("fuzz: case \(failure.seed) does not fail each time; again: make fuzz CASE=\(failure.seed)")
            return
        }
        let kept = shrink(all, while: { ContinuousClock.now < end }, fails)
        for (position, operation) in plan.keeping(kept).operations { print("  \(position): \(operation)") }
        let keep = kept.count == plan.operations.count ? "" : " KEEP=" + kept.map(String.init).joined(separator: ",")
        print("fuzz: case \(failure.seed) fails with these \(kept.count) operations")
        print("fuzz: again: make fuzz CASE=\(failure.seed)\(keep)")
    }

    /// Runs this program in a process of its own: a hang or a crash of a case must not end the search.
    private static func start(_ arguments: [String]) throws -> Int32 {
        let quiet = arguments.contains("--quiet")
        let nowhere = try OwnedDescriptor.open("/dev/null", .writeOnly)
        let output = quiet ? nowhere.rawValue : STDOUT_FILENO
        let process = try ChildProcess(
            "/proc/self/exe", arguments, descriptors: .init(input: STDIN_FILENO, output: output, error: output))
        return process.wait()
    }
}

/// Which case failed, and where: as one process tells it another.
struct Failure {
    let seed: UInt64
    let position: Int

    func write(_ path: FilePath) {
        guard
            let file = try? FileDescriptor.open(
                path, .writeOnly, options: [.create, .truncate], permissions: .ownerReadWrite)
        else { return }
        _ = try? file.writeAll("\(seed) \(position)".utf8)
        try? file.close()
    }

    static func read(_ path: FilePath) -> Failure? {
        guard let file = try? FileDescriptor.open(path, .readOnly) else { return nil }
        defer { try? file.close() }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = unsafe (try? bytes.withUnsafeMutableBytes { unsafe try file.read(into: $0) }) ?? 0
        let words = String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: " ")
        guard words.count == 2, let seed = UInt64(words[0]), let position = Int(words[1]) else { return nil }
        return Failure(seed: seed, position: position)
    }
}

/// Case after case.
struct Cases: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run cases until one fails.", shouldDisplay: false)

    @OptionGroup var options: CaseOptions

    @Option(help: "For how many seconds.")
    var duration = 60

    @Option(help: "Where to say which case is running.")
    var result: String

    func run() throws {
        let result = FilePath(result)
        let progress = FuzzProgress()
        let begun = ContinuousClock.now
        var (seed, count) = (options.seed, 0)
        while ContinuousClock.now < begun + .seconds(duration) {
            let plan = FuzzCase(seed: seed, length: options.length)
            Failure(seed: seed, position: -1).write(result)
            let position = runCase(plan, progress, options.patience) {
                Failure(seed: plan.seed, position: $0).write(result)
            }
            guard position == nil else { throw ExitCode(1) }
            (seed, count) = (seed &+ 1, count + 1)
        }
        Self.summarize(progress, cases: count, took: ContinuousClock.now - begun)
    }

    private static func summarize(_ progress: FuzzProgress, cases: Int, took: Duration) {
        let kinds = progress.operations.sorted { $0.key.rawValue < $1.key.rawValue }
        let total = kinds.reduce(0) { $0 + $1.value }
        print("fuzz: " + kinds.map { "\($0.key.rawValue) \($0.value)" }.joined(separator: ", "))
        let counters = progress.counters.filter { $0.key != "longest_wait_ns" }.sorted { $0.key < $1.key }
        print("fuzz: devices counted " + counters.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        let rate = Double(total) / (took / .seconds(1))
        print("fuzz: \(cases) cases, \(total) operations, \(Int(rate)) a second, no discrepancy")
    }
}

/// One case, or the operations that are left of it.
struct One: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run one case again.")

    @OptionGroup var options: CaseOptions

    @Option(help: "Positions of the operations to keep, separated by commas; all without this.")
    var keep: String?

    @Option(help: "How often: a guest that runs by itself makes no two runs alike.")
    var times = 1

    @Flag(help: "Say nothing.")
    var quiet = false

    @Option(help: "What to hide from the model, which has to notice; cases follow until one shows it.")
    var tampering: String?

    func run() throws {
        if let tampering {
            guard let tampering = FuzzTampering(rawValue: tampering) else {
                throw ValidationError("--tampering: one of \(FuzzTampering.allCases.map(\.rawValue))")
            }
            return try tamper(tampering)
        }
        var plan = FuzzCase(seed: options.seed, length: options.length)
        if let keep { plan = plan.keeping(keep.split(separator: ",").compactMap { Int($0) }) }
        if !quiet { for (position, operation) in plan.operations { print("  \(position): \(operation)") } }
        let progress = FuzzProgress()
        for _ in 0..<times {
            guard runCase(plan, progress, options.patience, { _ in }) == nil else { throw ExitCode(1) }
        }
        print("fuzz: \(times) times, no discrepancy")
    }

    /// Runs cases in which the model is not told everything: the first in which it was not must fail.
    private func tamper(_ tampering: FuzzTampering) throws {
        for seed in options.seed..<(options.seed + 20) {
            let plan = FuzzCase(seed: seed, length: options.length)
            let driver = try FuzzDriver(plan, tampering: tampering)
            do {
                try driver.run()
            } catch let error as Discrepancy {
                print("fuzz: \(tampering.rawValue) was noticed in case \(seed): \(error)")
                throw ExitCode(1)
            }
            guard driver.hasTampered else { continue }
            print("fuzz: \(tampering.rawValue) was not noticed in case \(seed)")
            return
        }
        print("fuzz: no case had anything to hide for \(tampering.rawValue)")
    }
}

/// Runs a case under a watchdog.
///
/// - Returns: where it failed, nil if it did not.
private func runCase(
    _ plan: FuzzCase, _ progress: FuzzProgress, _ patience: Int, _ failed: @escaping @Sendable (Int) -> Void
) -> Int? {
    let hang: @Sendable () -> Void = {
        print("fuzz: case \(plan.seed) hangs at operation \(progress.position)")
        fflush(nil)
        failed(progress.position)
    }
    var driver: FuzzDriver?
    do {
        let watchdog = try Watchdog(progress, limit: patience, hang)
        defer { watchdog.stop() }
        FuzzDriver.announce(plan)
        driver = try FuzzDriver(plan, progress: progress)
        try driver?.run()
        return nil
    } catch {
        for line in driver?.trail.suffix(60) ?? [] { print("  \(line)") }
        print("fuzz: case \(plan.seed) fails at operation \(progress.position): \(error)")
        failed(progress.position)
        return progress.position
    }
}
