// SPDX-License-Identifier: Apache-2.0
//
// A run from its file, checked, so that nothing after it meets a number that is none or a text that a terminal acts on.

import FoundationEssentials
public import SystemPackage

/// Why a file is no run of the benchmark.
public struct BenchmarkFileError: Error, Hashable, CustomStringConvertible {
    /// What was read.
    public let file: FilePath
    /// What is wrong with it.
    public let problem: Problem

    /// What is wrong.
    public enum Problem: Error, Hashable {
        /// It cannot be read.
        case unreadable(Errno)
        /// It is no JSON, says the parser.
        case notJSON(String)
        /// It has another format.
        case otherFormat(Int)
        /// Something is missing or not as it should be.
        case malformed(at: String, String)
    }

    /// What was tried, what came back, and what to do.
    public var description: String {
        let (found, remedy) = words
        return "cannot read \(file) as a run of the benchmark: \(found); \(remedy)"
    }

    private var words: (found: String, remedy: String) {
        let write = "make bench JSON=FILE writes one that can be read"
        return switch problem {
        case .unreadable(let errno): ("\(errno)", "make bench JSON=\(file) would write it")
        case .notJSON(let detail): ("it is no JSON (\(detail))", write)
        case .otherFormat(let format):
            (
                "it has format \(format), and this program knows format \(BenchmarkRun.format)",
                "measure again, or read it with the mmiofd that wrote it"
            )
        case .malformed(let place, let detail): ("\(place): \(detail)", write)
        }
    }
}

extension BenchmarkRun {
    /// Reads a file that the benchmark wrote.
    ///
    /// - Throws: why it cannot be used.
    public init(readingFrom file: FilePath) throws(BenchmarkFileError) {
        do throws(BenchmarkFileError.Problem) {
            try self.init(decoding: try Self.contents(of: file))
        } catch {
            throw BenchmarkFileError(file: file, problem: error)
        }
    }

    /// Reads the text of a file.
    ///
    /// - Throws: why it cannot be used.
    public init(decoding bytes: [UInt8]) throws(BenchmarkFileError.Problem) {
        struct Header: Decodable {
            let format: Int
        }
        let data = Data(bytes)
        let header = try Self.decode(Header.self, from: data, isJSON: false)
        guard header.format == Self.format else { throw .otherFormat(header.format) }
        self = try Self.decode(Self.self, from: data, isJSON: true)
        try check()
    }

    /// The run as the JSON that it can be read from.
    public func encoded() -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        // Numbers are finite, keys are text: nothing is left that could fail.
        return (try? encoder.encode(self)).map { Array($0) } ?? []
    }

    private static func decode<Value: Decodable>(
        _ type: Value.Type, from data: Data, isJSON: Bool
    ) throws(BenchmarkFileError.Problem) -> Value {
        do {
            return try JSONDecoder().decode(type, from: data)
        } catch let error as DecodingError {
            throw .init(error, isJSON: isJSON)
        } catch {
            throw .notJSON("\(error)")
        }
    }

    /// More than any run is; a device node has no end.
    private static let largestFile = 64 << 20

    private static func contents(of file: FilePath) throws(BenchmarkFileError.Problem) -> [UInt8] {
        do {
            let descriptor = try FileDescriptor.open(file, .readOnly)
            return try descriptor.closeAfter {
                var bytes: [UInt8] = []
                while bytes.count <= largestFile {
                    let more = try unsafe [UInt8](unsafeUninitializedCapacity: 1 << 16) { buffer, count in
                        count = try unsafe descriptor.read(into: UnsafeMutableRawBufferPointer(buffer))
                    }
                    if more.isEmpty { return bytes }
                    bytes += more
                }
                throw Errno.fileTooLarge
            }
        } catch {
            throw .unreadable(error as? Errno ?? .ioError)
        }
    }
}

extension BenchmarkRun {
    /// Checks what the types leave open.
    private func check() throws(BenchmarkFileError.Problem) {
        let texts = [machine.kernel, machine.cpu, machine.emulator ?? "", machine.compiler ?? ""] + plan.command
        let parameters = machine.module.flatMap { [$0.key, $0.value] }
        guard (texts + parameters).allSatisfy(Self.isPrintable) else {
            throw .malformed(at: "machine or plan", "a text has characters that cannot be printed")
        }
        guard (plan.rate ?? 0).magnitude < 1e15 else { throw .malformed(at: "plan.rate", "it is out of range") }
        guard !rows.isEmpty else { throw .malformed(at: "rows", "there is none") }
        var known: Set<BenchmarkRow.Key> = []
        for (position, row) in rows.enumerated() {
            if let problem = row.problem(in: mode) { throw .malformed(at: "rows[\(position)]", problem) }
            guard known.insert(row.key).inserted else {
                throw .malformed(at: "rows[\(position)]", "\(row.key) is there twice")
            }
        }
    }

    fileprivate static func isPrintable(_ text: String) -> Bool {
        text.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) }
    }
}

extension BenchmarkRow {
    /// What is wrong with it, nil for nothing.
    fileprivate func problem(in mode: BenchmarkRun.Mode) -> String? {
        let keys = [cpuNanoseconds, latency].flatMap { $0.map { Array($0.keys) } ?? [] }
        let names = [path, operation] + keys
        if !names.allSatisfy(Self.isName) { return "a name may have the characters a-z, 0-9, '-', '_' and '.' only" }
        if !(stages ?? []).map(\.stage).allSatisfy(BenchmarkRun.isPrintable) {
            return "a stage's name cannot be printed"
        }
        // Computed with later: what is beyond these was never measured.
        if !figures.allSatisfy({ abs($0) < 1e15 }) { return "a figure is out of range" }
        if ![width, vcpus, devices, ranges].allSatisfy((1...1_000_000).contains) {
            return "width, vcpus, devices and ranges must be 1 to 1000000"
        }
        if rounds.isEmpty { return "rounds has no value" }
        if (unit == .instructions) != (mode == .instructions) {
            return "its unit is \(unit.rawValue), and the run's mode \(mode.rawValue)"
        }
        return nil
    }

    private var figures: [Double] {
        let counts = [contextSwitches, systemCalls, wakeups, requestsPerRead].compactMap { $0 }
        let keyed = [cpuNanoseconds, latency].flatMap { $0.map { Array($0.values) } ?? [] }
        return [value] + rounds + counts + keyed + (stages ?? []).map(\.value)
    }

    private static func isName(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
                case UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."): true
                default: false
                }
            }
    }
}

extension BenchmarkFileError.Problem {
    /// What the decoder says, with the place as a programmer would write it.
    ///
    /// - Parameter isJSON: whether the text is known to be JSON; the decoder has one error for that and for numbers that
    ///   do not fit.
    fileprivate init(_ error: DecodingError, isJSON: Bool) {
        switch error {
        case .dataCorrupted(let context) where context.codingPath.isEmpty && !isJSON:
            self = .notJSON(Self.oneLine(context.debugDescription))
        case .dataCorrupted(let context):
            self = .malformed(at: Self.place(context.codingPath), Self.oneLine(context.debugDescription))
        case .keyNotFound(let key, let context):
            self = .malformed(at: Self.place(context.codingPath), "\"\(key.stringValue)\" is missing")
        case .typeMismatch(_, let context), .valueNotFound(_, let context):
            self = .malformed(at: Self.place(context.codingPath), Self.oneLine(context.debugDescription))
        @unknown default:
            self = .notJSON("an error that this program does not know")
        }
    }

    private static func place(_ path: [any CodingKey]) -> String {
        let text = path.reduce("") { text, key in
            if let index = key.intValue { return "\(text)[\(index)]" }
            return text.isEmpty ? key.stringValue : "\(text).\(key.stringValue)"
        }
        return text.isEmpty ? "the file" : oneLine(text)
    }

    /// What the decoder quotes from the file, fit for a terminal.
    private static func oneLine(_ text: String) -> String {
        String(text.unicodeScalars.map { $0.value < 0x20 || (0x7f...0x9f).contains($0.value) ? " " : Character($0) })
    }
}
