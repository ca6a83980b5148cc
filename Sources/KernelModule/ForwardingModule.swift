// SPDX-License-Identifier: Apache-2.0
//
// What is particular to kvm_user.ko.

public import SystemPackage

/// The module of this project, kvm_user.
public struct ForwardingModule: Sendable {
    /// The module's name.
    public static let name = "kvm_user"

    private let tree: SystemTree
    private let loader = ModuleLoader()

    /// The module on the machine that this runs on.
    public init() {
        self.init(in: .running)
    }

    init(in tree: SystemTree) {
        self.tree = tree
    }

    /// Its state now.
    public var state: ModuleState { ModuleState(of: Self.name, in: tree) }

    /// The number under which KVM_CREATE_DEVICE makes its devices, from the parameter `device_type` in sysfs.
    ///
    /// - Returns: nil if the module is not loaded.
    public var deviceType: UInt32? { Self.deviceType(state) }

    /// Loads the module from a file, after kvm and the processor's own part of it.
    ///
    /// - Throws: ``ModuleError``: EINVAL if the file is another module, ENODEV if the CPU offers no virtualisation.
    public func load(_ file: ModuleFile, parameters: [ModuleParameter] = []) throws(ModuleError) {
        guard file.name == Self.name else {
            throw ModuleError(
                action: "load \(file.path) as \(Self.name)", errno: .invalidArgument,
                cause: "the file is the module \(file.name)", remedy: "give a \(Self.name).ko")
        }
        try file.check(parameters)
        try loadKVM()
        try loader.load(file, parameters: parameters)
    }

    /// Loads the module as installed in /lib/modules, after kvm and the processor's own part of it.
    ///
    /// - Throws: ``ModuleError``; EEXIST if parameters are given and it is loaded already.
    public func load(parameters: [ModuleParameter] = []) throws(ModuleError) {
        try loadKVM()
        try loader.load(named: Self.name, parameters: parameters)
    }

    /// Unloads it; kvm stays.
    ///
    /// - Throws: ``ModuleError``: EBUSY names who uses it.
    public func unload() throws(ModuleError) {
        try loader.unload(Self.name)
    }

    /// The file that a build left in a checkout: `.build/kmod/NAME/kvm_user.ko`, the name being the running
    /// kernel's ``KernelRelease/buildName``, or `kmod/kvm_user.ko`, where `make -C kmod` puts it.
    ///
    /// The first that was built for the running kernel; else the one of the series, for which it is named.
    ///
    /// - Parameter checkout: the project's folder.
    /// - Returns: nil if there is none.
    public func builtFile(in checkout: FilePath) -> FilePath? {
        guard let release = KernelRelease(of: tree) else { return nil }
        let ofSeries = checkout.appending(".build/kmod/\(release.buildName)/\(Self.name).ko")
        let fitting = [ofSeries, checkout.appending("kmod/\(Self.name).ko")].first {
            (try? ModuleFile(at: $0))?.release == release.description
        }
        return fitting ?? (SystemTree(root: ofSeries).exists("") ? ofSeries : nil)
    }

    static func deviceType(_ state: ModuleState) -> UInt32? {
        state.parameters["device_type"].flatMap { UInt32($0) }
    }

    private func loadKVM() throws(ModuleError) {
        guard let virtualization = ProcessorVirtualization(of: tree) else {
            throw ModuleError(
                action: "load kvm", errno: .operationNotSupportedByDevice, cause: "the CPU offers neither SVM nor VT-x",
                remedy: "enable it in the firmware or the hypervisor above, or use the lab: mmiofd lab run")
        }
        try loader.load(named: "kvm")
        try loader.load(named: virtualization.moduleName)
    }
}
