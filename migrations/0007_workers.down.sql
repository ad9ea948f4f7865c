drop function turns_admit_waiting();
drop function turns_hand_over(bigint, bigint);
drop function tenant_slots_resize(uuid, bigint);
drop table workers;
