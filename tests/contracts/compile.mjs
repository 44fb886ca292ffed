// SPDX-License-Identifier: Apache-2.0
//
// Compiles solidity/ and the ERC-1967 proxy, and writes <contract>.json for each contract.
// Run by build.rs in a folder that contains node_modules: node compile.mjs SOLIDITY_FOLDER OUTPUT_FOLDER

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const PROXY = "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol";

const [folder, output] = process.argv.slice(2);
const solc = createRequire(join(process.cwd(), "package.json"))("solc");

const read = (file) => ({ content: readFileSync(file, "utf8") });
const own = readdirSync(folder).filter((name) => name.endsWith(".sol"));
const sources = Object.fromEntries(own.map((name) => [name, read(join(folder, name))]));
sources[PROXY] = read(join("node_modules", PROXY));

const input = {
  language: "Solidity",
  sources,
  settings: {
    // Older than the compiler's default, so that the code runs on every hardfork that a test may choose.
    evmVersion: "cancun",
    optimizer: { enabled: true, runs: 200 },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.methodIdentifiers"] } },
  },
};
const findImport = (path) => ({ contents: read(join("node_modules", path)).content });
const result = JSON.parse(solc.compile(JSON.stringify(input), { import: findImport }));

if (result.errors?.length) {
  for (const { formattedMessage } of result.errors) console.error(formattedMessage.trimEnd());
  process.exit(1);
}

mkdirSync(output, { recursive: true });
for (const name of Object.keys(sources)) {
  for (const [contract, { abi, evm }] of Object.entries(result.contracts[name])) {
    const artifact = { abi, selectors: evm.methodIdentifiers, bytecode: `0x${evm.bytecode.object}` };
    writeFileSync(join(output, `${contract}.json`), JSON.stringify(artifact));
  }
}
