/* The contract suite against every store there is. `test_store_contract CASE` runs the case of that name alone. */
#include "tests/store/contract.h"

typedef int group_function(const char *only);

int main(int argc, char **argv)
{
    static const store_adapter *const adapters[] = {&ADAPTER_SQLITE};
    static group_function *const groups[] = {contract_enqueue, contract_claim,     contract_run,   contract_states,
                                             contract_delay,   contract_deadlines, contract_lists, contract_forget,
                                             contract_restart, contract_memory,    contract_outbox};
    const char *only = argc > 1 ? argv[1] : NULL;
    int failures = 0;
    for (size_t a = 0; a < sizeof adapters / sizeof adapters[0]; a++) {
        use_adapter(adapters[a]);
        for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
            failures += groups[g](only);
        }
    }
    end_store_tests();
    return failures ? 1 : 0;
}
