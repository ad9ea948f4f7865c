drop function membership_leave();
