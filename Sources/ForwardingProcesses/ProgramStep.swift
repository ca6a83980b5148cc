// SPDX-License-Identifier: Apache-2.0
//
// Which guest program to run, and what can be wrong with the choice.

public import GuestPrograms

/// One guest program and its count: what each vCPU does before it goes on to the next.
public struct ProgramStep: Hashable, Sendable, CustomStringConvertible {
    /// The program; any but the mailbox.
    public let program: GuestProgram
    /// How many accesses or rounds, as the program says.
    public let count: Int

    /// Chooses a program.
    public init(_ program: GuestProgram, count: Int) {
        self.program = program
        self.count = count
    }

    /// Reads `NAME` or `NAME:COUNT`.
    ///
    /// - Parameters:
    ///   - text: such as "store_4" or "rep_stos_8:64".
    ///   - count: the count where the text has none.
    /// - Throws: ``ProgramError/unknown(name:)``; ``ProgramError/noCount(_:program:)`` for a count that is no number or
    ///   below 1.
    public init(parsing text: String, count: Int) throws(ProgramError) {
        let words = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let program = Self.programs.first(where: { $0.name == words[0] }) else {
            throw .unknown(name: String(words[0]))
        }
        self.program = program
        if words.count == 1 {
            self.count = count
        } else {
            guard let number = Int(words[1]), number > 0 else {
                throw .noCount(String(words[1]), program: program.name)
            }
            self.count = number
        }
    }

    /// The programs that can be chosen.
    public static let programs = GuestProgram.all.filter { $0 != .mailbox }

    /// Values that a run keeps at most.
    var loads: Int {
        switch program {
        case .straddling: times(GuestProgram.straddlingPairs)
        case .sixteenBytes: times(4)
        default: count
        }
    }

    private func times(_ factor: Int) -> Int {
        let (product, overflow) = count.multipliedReportingOverflow(by: factor)
        return overflow ? .max : product
    }

    /// "store_4:1000".
    public var description: String { "\(program.name):\(count)" }
}

/// A choice of guest program that cannot be run, or not on a device as it is placed.
public enum ProgramError: Error, Hashable, Sendable, CustomStringConvertible {
    /// There is no program of that name to choose.
    case unknown(name: String)
    /// What follows the program's name is no number of 1 or more.
    case noCount(String, program: String)
    /// The device has no memory that a guest could check.
    case noMemory(device: String)
    /// The device's memory is not enough for so many vCPUs.
    case tooManyVirtualCPUs(device: String, most: Int)
    /// The device is not on the bus that the program uses.
    case otherBus(program: String, device: String)
    /// The program does nothing of itself.
    case notAlone(program: String)
    /// The program would access what is not the vCPU's own memory.
    case leavesMemory(ProgramStep, device: String, bytes: Int)

    public var description: String {
        switch self {
        case .unknown(let name):
            "there is no guest program '\(name)'; see `mmiofd help vmm` for their names"
        case .noCount(let text, let program):
            "'\(text)' is no count of 1 or more for the guest program \(program)"
        case .noMemory(let device):
            "\(device) has no plain memory for guest programs"
        case .tooManyVirtualCPUs(let device, let most):
            "\(device) has memory for 1 to \(most) vCPU\(most == 1 ? "" : "s")"
        case .otherBus(let program, let device):
            "\(program) accesses a bus that \(device) is not on; choose another program"
        case .notAlone(let program):
            "\(program) makes no access of itself; choose another program"
        case .leavesMemory(let step, let device, let bytes):
            "\(step) does not fit into the \(bytes) bytes of \(device) that each vCPU has; "
                + "choose a smaller count, fewer vCPUs or a program of another width"
        }
    }
}
