"""Prints a finished run as the markdown tables of the README: python experiments/table.py runs/digits"""

import sys

from nas_kd.analyse import final_table, trust_table


def main(run: str) -> None:
    print("| | MACs | params | accuracy % (mean ± sd) | lowest to highest | agreement % | seeds |")
    print("|---|---|---|---|---|---|---|")
    for row in final_table(run).to_dict("records"):
        several = row["seeds"] > 1
        spread = f" ± {row['accuracy_sd_percent']:.2f}" if several else ""
        ends = f"{row['accuracy_min_percent']:.2f} to {row['accuracy_max_percent']:.2f}" if several else ""
        print(
            f"| {row['role'].replace('_', ' ')} | {row['macs']:,} | {row['params']:,} |"
            f" {row['accuracy_mean_percent']:.2f}{spread} | {ends} | {row['agreement_mean_percent']:.2f} |"
            f" {row['seeds']} |"
        )
    print("\n| score | ranks | archs | Kendall tau-b [95 % interval] |")
    print("|---|---|---|---|")
    for row in trust_table(run).dropna(subset=["tau"]).to_dict("records"):
        ranks = f"{row['truth']}, {row['among']}"
        print(f"| {row['score']} | {ranks} | {row['archs']} | {row['tau']:.2f} [{row['low']:.2f}, {row['high']:.2f}] |")


if __name__ == "__main__":
    main(sys.argv[1])
