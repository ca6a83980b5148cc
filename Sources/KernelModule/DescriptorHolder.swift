// SPDX-License-Identifier: Apache-2.0
//
// Who has a descriptor of the module open.

/// A process that holds a control or emulation descriptor of kvm_user.
public struct DescriptorHolder: Sendable, Hashable, CustomStringConvertible {
    /// What is held.
    public enum Kind: String, Sendable, Hashable, CaseIterable {
        /// The descriptor that KVM_CREATE_DEVICE gave to the VMM.
        case control = "anon_inode:kvm-user"
        /// The descriptor that an emulation process reads requests from.
        case emulation = "anon_inode:kvm-user-emulation"
    }

    /// The process.
    public let process: Int32
    /// Its name, at most 15 bytes (/proc/PID/comm).
    public let command: String
    /// The descriptor's number in it.
    public let descriptor: Int32
    /// What it is.
    public let kind: Kind

    /// `process 812 (qemu), descriptor 9: control descriptor`.
    public var description: String {
        "process \(process) (\(command)), descriptor \(descriptor): \(kind) descriptor"
    }

    /// Finds the processes that hold descriptors of kvm_user, through the names that /proc/PID/fd shows.
    ///
    /// Processes that end meanwhile, those in other PID namespaces, and those of other users unless this is root,
    /// are not seen. Nor is a virtual machine that lives on without its control descriptor.
    ///
    /// - Returns: by process, then by descriptor.
    public static func all(in tree: SystemTree = .running) -> [DescriptorHolder] {
        let processes = ((try? tree.names(in: "proc")) ?? []).compactMap { Int32($0) }.sorted()
        return processes.flatMap { holders(in: $0, tree) }
    }

    private static func holders(in process: Int32, _ tree: SystemTree) -> [DescriptorHolder] {
        let folder = "proc/\(process)/fd"
        let numbers = ((try? tree.names(in: folder)) ?? []).compactMap { Int32($0) }.sorted()
        return numbers.compactMap { number in
            guard let target = try? tree.target(ofLink: "\(folder)/\(number)"), let kind = Kind(rawValue: target)
            else { return nil }
            let command = tree.command(of: process) ?? "?"
            return DescriptorHolder(process: process, command: command, descriptor: number, kind: kind)
        }
    }
}
